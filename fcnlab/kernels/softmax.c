/* Softmax probabilities of some classes; called by fcnlab/kernels/softmax.py.
 *
 * LANES pixels are processed at a time. */

#include "parts.h"
#include "vectors.h"

#define DEFINE(TYPE, EXPONENTIALS, NAME)                                                                                 \
    /* Process LANES pixels, with a stride of `row` elements from class to class: write count floats of each wanted class. */ \
    INLINE void NAME##_lanes(const TYPE *z, long row, long classes, float *const *wanted, long at, long count) {       \
        vector e[MAX_CLASSES], total;                                                                                  \
        EXPONENTIALS(z, row, classes, e, &total);                                                                      \
        for (long c = 0; c < classes; c++) {                                                                           \
            if (wanted[c] == 0) continue;                                                                              \
            vector probability = e[c] / total;                                                                         \
            memcpy(wanted[c] + at, &probability, count * sizeof(float));                                               \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    static void NAME##_rows(const TYPE *z, long n, long step, long row, long classes, long pixels,                     \
                            float *const *wanted, long at) {                                                           \
        TYPE rest[MAX_CLASSES * LANES] = {0};                                                                          \
        long whole = pixels / LANES * LANES, left = pixels - whole;                                                    \
        for (long i = 0; i < n; i++, z += step, at += pixels) {                                                        \
            for (long t = 0; t < whole; t += LANES) NAME##_lanes(z + t, row, classes, wanted, at + t, LANES);          \
            if (left == 0) continue;                                                                                   \
            for (long c = 0; c < classes; c++) memcpy(rest + c * LANES, z + c * row + whole, left * sizeof(TYPE));     \
            NAME##_lanes(rest, LANES, classes, wanted, at + whole, left);                                              \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* Process n positions with a stride of `step` elements, of `pixels` pixels each; wanted[c] is [n, pixels] or null. */ \
    void NAME(const TYPE *z, long n, long step, long row, long classes, long pixels, float *const *wanted,             \
              long parts) {                                                                                            \
        FOR_PARTS {                                                                                                    \
            Part rows = get_part(n, part, parts);                                                                      \
            NAME##_rows(z + rows.first * step, rows.count, step, row, classes, pixels, wanted, rows.first * pixels);   \
        }                                                                                                              \
    }

DEFINE(float, exponentials_fp32, softmax_fp32)
DEFINE(bfloat16, exponentials_bf16, softmax_bf16)
