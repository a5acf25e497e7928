/* Softmax cross entropy that overwrites scores by their gradient; called by fcnlab/kernels/cross_entropy.py.
 *
 * LANES pixels are processed at a time. */

#include <math.h>

#include "parts.h"
#include "vectors.h"

/* Loss of a pixel of class y: own[y] (lse - z[y]) + sum over c of even[c] (lse - z[c]), with lse = log sum exp z. */
typedef struct {
    long classes;
    const float *own;
    const float *even;
    float even_sum; /* sum over all classes; 0 without label smoothing */
} Loss;

#define DEFINE(TYPE, ONE, EXPONENTIALS, WRITE, NAME)                                                                   \
    /* Process LANES pixels, with a stride of `row` elements from class to class: return their loss and overwrite z by its gradient. */  \
    INLINE double NAME##_lanes(const Loss *loss, TYPE *z, long row, const uint8_t *labels, float scale,                \
                               const float *const *slopes, long at) {                                                  \
        vector e[MAX_CLASSES], more[MAX_CLASSES], total, factor = {0}, counted = {0};                                  \
        vector top = EXPONENTIALS(z, row, loss->classes, e, &total);                                                   \
        double lost = 0;                                                                                               \
        if (slopes) { /* the softmax's derivative: p[c] (slope[c] - sum over k of p[k] slope[k]) with p = e / total */ \
            vector mean = {0}, zero = {0};                                                                             \
            for (long c = 0; c < loss->classes; c++)                                                                   \
                if (slopes[c]) mean += e[c] * read_fp32(slopes[c] + at);                                               \
            mean /= total;                                                                                             \
            for (long c = 0; c < loss->classes; c++)                                                                   \
                more[c] = e[c] / total * ((slopes[c] ? read_fp32(slopes[c] + at) : zero) - mean);                      \
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
        for (long c = 0; c < loss->classes; c++) {                                                                     \
            vector gradient = factor * e[c] - counted * loss->even[c];                                                 \
            WRITE(z + c * row, slopes ? gradient + more[c] : gradient);                                                \
        }                                                                                                              \
        return scale * lost;                                                                                           \
    }                                                                                                                  \
                                                                                                                       \
    /* Process n positions; `at` is the number of pixels before the first of them. */                                  \
    static double NAME##_rows(const Loss *loss, TYPE *z, long n, long step, long row, long pixels,                     \
                              const uint8_t *labels, const float *scales, const float *const *slopes, long at) {       \
        double lost = 0;                                                                                               \
        TYPE rest[MAX_CLASSES * LANES] = {0};                                                                          \
        uint8_t rest_labels[LANES];                                                                                    \
        float rest_values[MAX_CLASSES * LANES] = {0};                                                                  \
        const float *rest_slopes[MAX_CLASSES] = {0};                                                                   \
        long whole = pixels / LANES * LANES, left = pixels - whole;                                                    \
        for (long i = 0; i < n; i++, z += step, labels += pixels, at += pixels) {                                      \
            for (long t = 0; t < whole; t += LANES)                                                                    \
                lost += NAME##_lanes(loss, z + t, row, labels + t, scales[i], slopes, at + t);                         \
            if (left == 0) continue;                                                                                   \
            memset(rest_labels, IGNORE, LANES);                                                                        \
            memcpy(rest_labels, labels + whole, left);                                                                 \
            for (long c = 0; c < loss->classes; c++) {                                                                 \
                memcpy(rest + c * LANES, z + c * row + whole, left * sizeof(TYPE));                                    \
                if (slopes == 0 || slopes[c] == 0) continue;                                                           \
                memcpy(rest_values + c * LANES, slopes[c] + at + whole, left * sizeof(float));                         \
                rest_slopes[c] = rest_values + c * LANES;                                                              \
            }                                                                                                          \
            lost += NAME##_lanes(loss, rest, LANES, rest_labels, scales[i], slopes ? rest_slopes : 0, 0);              \
            for (long c = 0; c < loss->classes; c++)                                                                   \
                memcpy(z + c * row + whole, rest + c * LANES, left * sizeof(TYPE));                                    \
        }                                                                                                              \
        return lost;                                                                                                   \
    }                                                                                                                  \
                                                                                                                       \
    /* Process n positions with a stride of `step` elements, of `pixels` pixels each; labels [n, pixels], scales [n].  \
     * slopes: null, or by class the gradient [n, pixels] of another loss with respect to the probability; null for 0. \
     * lost: the loss by part. */                                                                                      \
    void NAME(const Loss *loss, TYPE *z, long n, long step, long row, long pixels, const uint8_t *labels,              \
              const float *scales, const float *const *slopes, long parts, double *lost) {                             \
        FOR_PARTS {                                                                                                    \
            Part rows = get_part(n, part, parts);                                                                      \
            long at = rows.first * pixels;                                                                             \
            lost[part] = NAME##_rows(loss, z + rows.first * step, rows.count, step, row, pixels, labels + at,          \
                                     scales + rows.first, slopes, at);                                                 \
        }                                                                                                              \
    }

DEFINE(float, one_fp32, exponentials_fp32, write_fp32, cross_entropy_fp32)
DEFINE(bfloat16, one_bf16, exponentials_bf16, write_bf16, cross_entropy_bf16)
