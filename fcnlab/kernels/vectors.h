/* Vectors of LANES scores, which gcc and clang map to the registers of the machine, and their reading and writing. */

#pragma once

#include <stdint.h>
#include <string.h>

#define LANES 16
#define IGNORE 255
#define MAX_CLASSES 255
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bfloat16;
typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

INLINE float one_fp32(const float *from) { return *from; }

INLINE vector read_fp32(const float *from) {
    vector read;
    memcpy(&read, from, sizeof read);
    return read;
}

INLINE void write_fp32(float *to, vector written) { memcpy(to, &written, sizeof written); }

INLINE float one_bf16(const bfloat16 *from) {
    uint32_t bits = (uint32_t)*from << 16;
    float one;
    memcpy(&one, &bits, sizeof one);
    return one;
}

INLINE vector read_bf16(const bfloat16 *from) {
    halves read;
    memcpy(&read, from, sizeof read);
    return (vector)(__builtin_convertvector(read, words) << 16);
}

/* Round to nearest, ties to even. */
INLINE void write_bf16(bfloat16 *to, vector written) {
    words bits = (words)written;
    halves rounded = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
    memcpy(to, &rounded, sizeof rounded);
}

INLINE vector where(integers condition, vector yes, vector no) {
    return (vector)((condition & (integers)yes) | (~condition & (integers)no));
}

/* exp(x) for x <= 0 with a relative error of about 2e-7, as expf of Cephes: 2^n times a polynomial. nan stays nan. */
INLINE vector exponential(vector x) {
    const vector least = {0};
    x = where(x < least - 87.0f, least - 87.0f, x);
    vector n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* adding 1.5 * 2^23 rounds */
    vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vector)((__builtin_convertvector(n, integers) + 127) << 23);
}

/* Define a function that computes e[c] = exp(z[c] - top) of LANES pixels, with a stride of `row` elements from class to
 * class, and returns the greatest score, top; total is the sum of e. */
#define DEFINE_EXPONENTIALS(TYPE, READ, NAME)                                                                          \
    INLINE vector NAME(const TYPE *z, long row, long classes, vector *e, vector *total) {                              \
        vector top = READ(z), sum = {0};                                                                               \
        for (long c = 1; c < classes; c++) {                                                                           \
            vector score = READ(z + c * row);                                                                          \
            top = where(score > top, score, top);                                                                      \
        }                                                                                                              \
        for (long c = 0; c < classes; c++) {                                                                           \
            e[c] = exponential(READ(z + c * row) - top);                                                               \
            sum += e[c];                                                                                               \
        }                                                                                                              \
        *total = sum;                                                                                                  \
        return top;                                                                                                    \
    }

DEFINE_EXPONENTIALS(float, read_fp32, exponentials_fp32)
DEFINE_EXPONENTIALS(bfloat16, read_bf16, exponentials_bf16)
