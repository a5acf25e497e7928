/* Softmax cross entropy that overwrites scores by their gradient; called by fcnlab/kernels/cross_entropy.py.
 *
 * LANES pixels are processed at a time. */

#include <math.h>

#include "vectors.h"

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

/* Loss of a pixel of class y: own[y] (lse - z[y]) + sum over c of even[c] (lse - z[c]), with lse = log sum exp z. */
typedef struct {
    long classes;
    const float *own;
    const float *even;
    float even_sum; /* sum over all classes; 0 without label smoothing */
} Loss;

#define DEFINE(TYPE, ONE, READ, WRITE, NAME)                                                                           \
    /* Process LANES pixels, with a stride of `row` elements from class to class: return their loss and overwrite z by its gradient. */  \
    INLINE double NAME##_lanes(const Loss *loss, TYPE *z, long row, const uint8_t *labels, float scale) {              \
        vector e[MAX_CLASSES], top = READ(z), total = {0}, factor = {0}, counted = {0};                                \
        double lost = 0;                                                                                               \
        for (long c = 1; c < loss->classes; c++) {                                                                     \
            vector score = READ(z + c * row);                                                                          \
            top = where(score > top, score, top);                                                                      \
        }                                                                                                              \
        for (long c = 0; c < loss->classes; c++) {                                                                     \
            e[c] = exponential(READ(z + c * row) - top);                                                               \
            total += e[c];                                                                                             \
        }                                                                                                              \
        for (int k = 0; k < LANES; k++) {                                                                              \
            int y = labels[k];                                                                                         \
            if (y == IGNORE) continue;                                                                                 \
            float own = loss->own[y], lse = top[k] + logf(total[k]), weight = own + loss->even_sum;                    \
            lost += own * (lse - ONE(z + y * row + k));                                                                \
            if (loss->even_sum > 0)                                                                                    \
                for (long c = 0; c < loss->classes; c++) lost += loss->even[c] * (lse - ONE(z + c * row + k));         \
            counted[k] = scale;                                                                                        \
            factor[k] = scale * weight / total[k];                                                                     \
            if (weight > 0) e[y][k] -= own / weight * total[k];                                                        \
        }                                                                                                              \
        for (long c = 0; c < loss->classes; c++) WRITE(z + c * row, factor * e[c] - counted * loss->even[c]);          \
        return scale * lost;                                                                                           \
    }                                                                                                                  \
                                                                                                                       \
    /* Process n positions with a stride of `step` elements, of `pixels` pixels each; labels [n, pixels], scales [n]. */         \
    double NAME(const Loss *loss, TYPE *z, long n, long step, long row, long pixels, const uint8_t *labels,            \
                const float *scales) {                                                                                 \
        double lost = 0;                                                                                               \
        TYPE rest[MAX_CLASSES * LANES] = {0};                                                                          \
        uint8_t rest_labels[LANES];                                                                                    \
        long whole = pixels / LANES * LANES, left = pixels - whole;                                                    \
        for (long i = 0; i < n; i++) {                                                                                 \
            TYPE *at = z + i * step;                                                                                   \
            const uint8_t *labelled = labels + i * pixels;                                                             \
            for (long t = 0; t < whole; t += LANES) lost += NAME##_lanes(loss, at + t, row, labelled + t, scales[i]);  \
            if (left == 0) continue;                                                                                   \
            memset(rest_labels, IGNORE, LANES);                                                                        \
            memcpy(rest_labels, labelled + whole, left);                                                               \
            for (long c = 0; c < loss->classes; c++)                                                                   \
                memcpy(rest + c * LANES, at + c * row + whole, left * sizeof(TYPE));                                   \
            lost += NAME##_lanes(loss, rest, LANES, rest_labels, scales[i]);                                           \
            for (long c = 0; c < loss->classes; c++)                                                                   \
                memcpy(at + c * row + whole, rest + c * LANES, left * sizeof(TYPE));                                   \
        }                                                                                                              \
        return lost;                                                                                                   \
    }

DEFINE(float, one_fp32, read_fp32, write_fp32, cross_entropy_fp32)
DEFINE(bfloat16, one_bf16, read_bf16, write_bf16, cross_entropy_bf16)
