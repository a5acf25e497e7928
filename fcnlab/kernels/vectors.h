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
