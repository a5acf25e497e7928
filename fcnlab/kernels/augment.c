/* Resize, crop, flip, pad and normalize a uint8 image and its label in one pass; called by fcnlab/kernels/augment.py.
 *
 * Pixels are equal to those of PyTorch's `_upsample_bilinear2d_aa` for uint8 bit for bit: a horizontal pass and then a
 * vertical one, with weights that are multiples of 2^-precision, each rounded to an integer. Sums are float32 and exact:
 * below 256 and in multiples of 2^-16, no sum needs more than the 24 bits of a float32. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHANNELS = 3,
    AHEAD = 16,        /* rows to prefetch: samples are spread over a large file */
    BLOCK = 48,        /* values processed together: a multiple of any vector width and of a pixel */
    MAX_BITS = 16,     /* largest precision of weights for which sums are exact */
    MAX_PRECISION = 22 /* largest precision in PyTorch */
};

typedef float quad __attribute__((vector_size(16)));
typedef int32_t quad_int __attribute__((vector_size(16)));
typedef uint8_t sixteen __attribute__((vector_size(16)));
/* Bytes 1..15, which are five pixels, in reverse order of pixels. */
#if defined(__clang__)
#define MIRRORED(v) __builtin_shufflevector(v, v, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0)
#else
#define MIRRORED(v) __builtin_shuffle(v, (sixteen){13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0})
#endif

typedef struct {
    const uint8_t *image, *label; /* [height, width, 3] and [height, width] */
    int64_t height, width;
    int64_t resized_height, resized_width;
    int64_t top, left, rows, columns; /* the window of the resized image that the crop shows */
    int64_t flip;
} Sample;

typedef struct {
    int64_t height, width;
    uint8_t fill[CHANNELS];
    uint8_t ignore;
    float mean[CHANNELS], std[CHANNELS]; /* in 0..255 */
} Crop;

/* Means, deviations and their reciprocals for a block of values. */
typedef struct {
    float mean[BLOCK], std[BLOCK], reciprocal[BLOCK];
} Scale;

/* Source positions and weights of each position of a resized axis: `taps` positions from `first` on. */
typedef struct {
    int64_t taps;
    int64_t *first; /* [count] */
    float *weights; /* [count, taps] */
} Axis;

static void *floats(int64_t count) { return calloc((size_t)count, sizeof(float)); }

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static int same_axis(Axis *axis, int64_t begin, int64_t end) {
    axis->taps = 1;
    axis->first = malloc((size_t)(end - begin) * sizeof(int64_t));
    axis->weights = floats(end - begin);
    if (!axis->first || !axis->weights) return 1;
    for (int64_t i = begin; i < end; i++) {
        axis->first[i - begin] = i;
        axis->weights[i - begin] = 1.0f;
    }
    return 0;
}

/* Compute the weights of the positions begin..end - 1 as PyTorch does. Return 1 if exact sums are not possible. */
static int make_axis(Axis *axis, int64_t source, int64_t target, int64_t begin, int64_t end) {
    if (source == target) return same_axis(axis, begin, end);
    const double scale = 1.0 / ((double)target / (double)source);
    const double support = scale >= 1.0 ? scale : 1.0, steepness = scale >= 1.0 ? 1.0 / scale : 1.0;
    const int64_t most = (int64_t)ceilf((float)support) * 2 + 1;
    double *exact = malloc((size_t)(end * most) * sizeof(double));
    int64_t *first = malloc((size_t)end * sizeof(int64_t));
    axis->first = malloc((size_t)(end - begin) * sizeof(int64_t));
    axis->weights = NULL;
    int failed = !exact || !first || !axis->first;
    double largest = 0.0;
    for (int64_t i = 0; i < end && !failed; i++) {
        const double center = scale * ((double)i + 0.5);
        int64_t low = (int64_t)(center - support + 0.5), high = (int64_t)(center + support + 0.5);
        if (low < 0) low = 0;
        if (high > source) high = source;
        int64_t count = high - low;
        if (count > most) count = most;
        double total = 0.0, *own = exact + i * most;
        for (int64_t j = 0; j < most; j++) {
            own[j] = j < count ? triangle(((double)(j + low) - center + 0.5) * steepness) : 0.0;
            total += own[j];
        }
        for (int64_t j = 0; j < count; j++) {
            own[j] /= total;
            if (own[j] > largest) largest = own[j];
        }
        first[i] = low;
    }
    int precision = 0;
    while (precision < MAX_PRECISION && (int)(0.5 + largest * (double)(1 << (precision + 1))) < 1 << 15) precision++;
    failed = failed || precision > MAX_BITS;
    const double whole = (double)(1 << precision);
    axis->taps = 1;
    for (int64_t i = begin; i < end && !failed; i++) { /* round to multiples of 2^-precision, without leading zeros */
        double *own = exact + i * most;
        int64_t front = 0, last = 0;
        for (int64_t j = 0; j < most; j++) own[j] = (double)(int)(0.5 + own[j] * whole) / whole;
        while (front < most - 1 && own[front] == 0.0) front++;
        for (int64_t j = front; j < most; j++) if (own[j] != 0.0) last = j;
        memmove(own, own + front, (size_t)(most - front) * sizeof(double));
        for (int64_t j = most - front; j < most; j++) own[j] = 0.0;
        if (last - front + 1 > axis->taps) axis->taps = last - front + 1;
        axis->first[i - begin] = first[i] + front;
    }
    if (!failed) axis->weights = floats((end - begin) * axis->taps);
    failed = failed || !axis->weights;
    for (int64_t i = begin; i < end && !failed; i++)
        for (int64_t t = 0; t < axis->taps; t++)
            axis->weights[(i - begin) * axis->taps + t] = (float)exact[i * most + t];
    free(exact);
    free(first);
    return failed;
}

static void drop_axis(Axis *axis) {
    free(axis->first);
    free(axis->weights);
}

/* (value - mean) / std. With a fused multiply-add the quotient is corrected by its remainder, which costs less than a
 * division; the caller checks that all 256 values have the same bits. */
static inline float normal(float value, float mean, float std, float reciprocal) {
    const float above = value - mean;
#if defined(__FMA__) || defined(__aarch64__)
    const float quotient = above * reciprocal;
    return __builtin_fmaf(__builtin_fmaf(-quotient, std, above), reciprocal, quotient);
#else
    (void)reciprocal;
    return above / std;
#endif
}

static inline void normalize_block(const uint8_t *restrict from, float *restrict to, const Scale *restrict scale) {
    for (int j = 0; j < BLOCK; j++) to[j] = normal((float)from[j], scale->mean[j], scale->std[j], scale->reciprocal[j]);
}

/* Normalize `count` values of a row, starting with a red one. */
static void normalize_row(const uint8_t *from, float *to, int64_t count, const Scale *scale) {
    int64_t done = 0;
    for (; done + BLOCK <= count; done += BLOCK) normalize_block(from + done, to + done, scale);
    if (done < count) {
        uint8_t rest[BLOCK] = {0};
        float result[BLOCK];
        memcpy(rest, from + done, (size_t)(count - done));
        normalize_block(rest, result, scale);
        memcpy(to + done, result, (size_t)(count - done) * sizeof(float));
    }
}

/* Prefetch the pixels first..first + count - 1 of a row and their labels. The row may be outside the image. */
static void fetch(const Sample *sample, int64_t row, int64_t first, int64_t count) {
    const uint8_t *image = sample->image + CHANNELS * (row * sample->width + first);
    const uint8_t *label = sample->label + row * sample->width + first;
    for (int64_t j = 0; j < CHANNELS * count; j += 64) __builtin_prefetch(image + j);
    for (int64_t j = 0; j < count; j += 64) __builtin_prefetch(label + j);
}

/* Mirror a row of pixels. Up to 16 bytes of `to` beyond its end are written. */
static void mirror_row(const uint8_t *from, uint8_t *to, int64_t pixels) {
    const uint8_t *end = from + CHANNELS * pixels;
    for (; end - from >= 16; end -= 15, to += 15) { /* five pixels, and a byte that the next iteration overwrites */
        sixteen five;
        memcpy(&five, end - 16, 16);
        five = MIRRORED(five);
        memcpy(to, &five, 16);
    }
    for (; end > from; end -= CHANNELS, to += CHANNELS) memcpy(to, end - CHANNELS, CHANNELS);
}

static inline __attribute__((always_inline)) void across(
    const float *line, const Axis *axis, int64_t taps, int64_t columns, float *to) {
    const float *weights = axis->weights;
    for (int64_t i = 0; i < columns; i++, weights += taps) {
        const float *from = line + axis->first[i];
        quad sum = {0.5f, 0.5f, 0.5f, 0.5f}, pixel; /* the fourth value is unused; the next pixel overwrites it */
        for (int64_t t = 0; t < taps; t++) {
            memcpy(&pixel, from + CHANNELS * t, sizeof(pixel));
            sum += pixel * weights[t];
        }
        sum = __builtin_convertvector(__builtin_convertvector(sum, quad_int), quad);
        memcpy(to + CHANNELS * i, &sum, sizeof(sum));
    }
}

static void resize_row(const float *line, const Axis *axis, int64_t columns, float *to) {
    switch (axis->taps) { /* constant taps, so that loops are unrolled */
    case 1: across(line, axis, 1, columns, to); break;
    case 2: across(line, axis, 2, columns, to); break;
    case 3: across(line, axis, 3, columns, to); break;
    case 4: across(line, axis, 4, columns, to); break;
    default: across(line, axis, axis->taps, columns, to);
    }
}

/* Convert positions from pixels to values of a line that starts at the first one, in reverse order if flipped. */
static int64_t along_line(Axis *axis, int64_t columns, int64_t flip) {
    const int64_t base = axis->first[0];
    for (int64_t i = 0; i < columns; i++) axis->first[i] = CHANNELS * (axis->first[i] - base);
    for (int64_t i = 0, k = columns - 1; flip && i < k; i++, k--) {
        const int64_t first = axis->first[i];
        axis->first[i] = axis->first[k];
        axis->first[k] = first;
        for (int64_t t = 0; t < axis->taps; t++) {
            float *one = axis->weights + i * axis->taps + t, *other = axis->weights + k * axis->taps + t, kept = *one;
            *one = *other;
            *other = kept;
        }
    }
    return base;
}

static inline __attribute__((always_inline)) void blend_block(
    const float *const *rows, const float *weights, int64_t taps, int64_t at, const Scale *restrict scale,
    float *restrict to) {
    for (int j = 0; j < BLOCK; j++) {
        float sum = 0.5f;
        for (int64_t t = 0; t < taps; t++) sum += rows[t][at + j] * weights[t];
        const float level = (float)(int32_t)sum; /* at most 255: weights sum to 1 up to rounding */
        to[j] = normal(level, scale->mean[j], scale->std[j], scale->reciprocal[j]);
    }
}

static inline __attribute__((always_inline)) void down(
    const float *const *rows, const float *weights, int64_t taps, int64_t count, const Scale *scale, float *to) {
    int64_t done = 0;
    for (; done + BLOCK <= count; done += BLOCK) blend_block(rows, weights, taps, done, scale, to + done);
    if (done < count) {
        float result[BLOCK];
        blend_block(rows, weights, taps, done, scale, result);
        memcpy(to + done, result, (size_t)(count - done) * sizeof(float));
    }
}

static void blend_rows(
    const float *const *rows, const float *weights, int64_t taps, int64_t count, const Scale *scale, float *to) {
    switch (taps) {
    case 1: down(rows, weights, 1, count, scale, to); break;
    case 2: down(rows, weights, 2, count, scale, to); break;
    case 3: down(rows, weights, 3, count, scale, to); break;
    case 4: down(rows, weights, 4, count, scale, to); break;
    default: down(rows, weights, taps, count, scale, to);
    }
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Resize a window row by row. A ring buffer holds the horizontally resized rows that one output row needs. */
static int place_resized(const Sample *sample, const Scale *scale, float *to, int64_t stride) {
    Axis vertical = {0}, horizontal = {0};
    float *line = NULL, *ring = NULL;
    const float **rows = NULL;
    const int64_t bottom = sample->top + sample->rows, right = sample->left + sample->columns;
    int failed = make_axis(&vertical, sample->height, sample->resized_height, sample->top, bottom) ||
                 make_axis(&horizontal, sample->width, sample->resized_width, sample->left, right);
    if (!failed) {
        const int64_t kept = vertical.taps + 1;
        const int64_t reached = horizontal.first[sample->columns - 1] + horizontal.taps;
        const int64_t base = along_line(&horizontal, sample->columns, sample->flip);
        const int64_t end = smaller(reached, sample->width);
        const int64_t length = (CHANNELS * sample->columns / BLOCK + 1) * BLOCK + 4;
        line = floats(CHANNELS * (reached - base) + 4);
        ring = floats(kept * length);
        rows = malloc((size_t)vertical.taps * sizeof(*rows));
        failed = !line || !ring || !rows;
        int64_t done = failed ? 0 : vertical.first[0]; /* the source row after the last one in the ring */
        for (int64_t i = 0; i < sample->rows && !failed; i++) {
            for (int64_t t = 0; t < vertical.taps; t++) {
                const int64_t row = smaller(vertical.first[i] + t, sample->height - 1);
                for (; done <= row; done++) {
                    const uint8_t *from = sample->image + CHANNELS * (done * sample->width + base);
                    fetch(sample, done + AHEAD, base, end - base);
                    for (int64_t j = 0; j < CHANNELS * (end - base); j++) line[j] = (float)from[j];
                    resize_row(line, &horizontal, sample->columns, ring + done % kept * length);
                }
                rows[t] = ring + row % kept * length;
            }
            blend_rows(rows, vertical.weights + i * vertical.taps, vertical.taps, CHANNELS * sample->columns, scale,
                       to + i * stride);
        }
    }
    drop_axis(&vertical);
    drop_axis(&horizontal);
    free(line);
    free(ring);
    free(rows);
    return failed;
}

static int place_window(const Sample *sample, const Scale *scale, float *to, int64_t stride) {
    uint8_t *mirrored = malloc((size_t)(CHANNELS * sample->columns + 16));
    if (!mirrored) return 1;
    for (int64_t i = 0; i < sample->rows; i++) {
        const uint8_t *row = sample->image + CHANNELS * ((sample->top + i) * sample->width + sample->left);
        fetch(sample, sample->top + i + AHEAD, sample->left, sample->columns);
        if (sample->flip) mirror_row(row, mirrored, sample->columns);
        normalize_row(sample->flip ? mirrored : row, to + i * stride, CHANNELS * sample->columns, scale);
    }
    free(mirrored);
    return 0;
}

/* Return the source position of position `i` of a resized axis, with the rounding of NEAREST_EXACT. */
static int64_t nearest(int64_t source, int64_t target, int64_t i) {
    return smaller((int64_t)(((float)i + 0.5f) * ((float)source / (float)target)), source - 1);
}

static void mirror_labels(const uint8_t *restrict from, uint8_t *restrict to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = from[count - 1 - i];
}

static void gather_labels(
    const uint8_t *restrict from, const int32_t *restrict columns, uint8_t *restrict to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = from[columns[i]];
}

static int place_label(const Sample *sample, uint8_t *to, int64_t stride) {
    const int64_t count = sample->columns;
    int32_t *columns = malloc((size_t)count * sizeof(*columns));
    if (!columns) return 1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t column = sample->left + (sample->flip ? count - 1 - i : i);
        columns[i] = (int32_t)nearest(sample->width, sample->resized_width, column);
    }
    int64_t before = -1;
    for (int64_t i = 0; i < sample->rows; i++, to += stride) {
        const int64_t row = nearest(sample->height, sample->resized_height, sample->top + i);
        const uint8_t *from = sample->label + row * sample->width;
        if (row == before)
            memcpy(to, to - stride, (size_t)count);
        else if (sample->width != sample->resized_width)
            gather_labels(from, columns, to, count);
        else if (sample->flip)
            mirror_labels(from + sample->left, to, count);
        else
            memcpy(to, from + sample->left, (size_t)count);
        before = row;
    }
    free(columns);
    return 0;
}

/* Fill the part of a crop outside the window, which starts at column `left` of the first row. */
static int pad(const Crop *crop, const Sample *sample, int64_t left, const Scale *scale, float *image, uint8_t *label) {
    const int64_t row = CHANNELS * crop->width, right = left + sample->columns;
    uint8_t *levels = malloc((size_t)row);
    float *filled = floats(row);
    const int failed = !levels || !filled;
    if (!failed) {
        for (int64_t j = 0; j < row; j++) levels[j] = crop->fill[j % CHANNELS];
        normalize_row(levels, filled, row, scale);
        for (int64_t i = 0; i < crop->height; i++, image += row, label += crop->width) {
            const int64_t head = i < sample->rows ? left : crop->width, tail = i < sample->rows ? right : crop->width;
            memcpy(image, filled, (size_t)(CHANNELS * head) * sizeof(float));
            memcpy(image + CHANNELS * tail, filled, (size_t)(CHANNELS * (crop->width - tail)) * sizeof(float));
            memset(label, crop->ignore, (size_t)head);
            memset(label + tail, crop->ignore, (size_t)(crop->width - tail));
        }
    }
    free(levels);
    free(filled);
    return failed;
}

/* Write a sample's crop into image [height, width, 3] and label [height, width].
 *
 * Return 0, or 1 on failure: memory is exhausted, or the image shrinks so much that sums of weights are not exact. The
 * outputs are then undefined. */
int place(const Sample *sample, const Crop *crop, float *image, uint8_t *label) {
    Scale scale;
    for (int j = 0; j < BLOCK; j++) {
        scale.mean[j] = crop->mean[j % CHANNELS];
        scale.std[j] = crop->std[j % CHANNELS];
        scale.reciprocal[j] = 1.0f / crop->std[j % CHANNELS];
    }
    const int64_t left = sample->flip ? crop->width - sample->columns : 0, stride = CHANNELS * crop->width;
    float *first = image + CHANNELS * left;
    const int resized = sample->height != sample->resized_height || sample->width != sample->resized_width;
    if (sample->rows != crop->height || sample->columns != crop->width)
        if (pad(crop, sample, left, &scale, image, label)) return 1;
    if (resized ? place_resized(sample, &scale, first, stride) : place_window(sample, &scale, first, stride)) return 1;
    return place_label(sample, label + left, crop->width);
}
