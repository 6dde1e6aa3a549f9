/* Max-pools 3 x 3 of stride 2 and padding 1 before a normalisation, on maps with the channels stored last.
 *
 * Normalisation keeps the order of the values of a channel, or turns it round where its scale is negative, so the
 * largest normalised value is that of the largest or smallest value before it; where the scale is zero, all are equal
 * (`sign` is 1, -1 or 0). The way back puts the gradient through the pool and adds the share that goes through mean and
 * deviation, in one pass.
 */
#include "common.h"

typedef struct {
    int64_t images, height, width, channels, threads;
} Maps;

static inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Compare one place of the window with the best so far. */
static inline void compare(const real *restrict x, const real *restrict sign, real *restrict best,
                           real *restrict places, real place, int64_t length) {
    for (int64_t c = 0; c < length; c++) {
        const int larger = x[c] * sign[c] > best[c] * sign[c];
        places[c] = larger ? place : places[c];
        best[c] = larger ? x[c] : best[c];
    }
}

/* Find the largest x * sign of the window of one output pixel (row, column), for some channels. */
static void find(const Maps *maps, const real *image, const real *sign, int64_t row, int64_t column, int64_t length,
                 real *restrict pooled, uint8_t *restrict places) {
    real where[CHUNK];
    int first = 1;
    for (int64_t place = 0; place < 9; place++) {
        const int64_t y = 2 * row - 1 + place / 3, x = 2 * column - 1 + place % 3;
        if (y < 0 || x < 0 || y >= maps->height || x >= maps->width)
            continue;
        const real *restrict in = image + (y * maps->width + x) * maps->channels;
        if (first)
            for (int64_t c = 0; c < length; c++) {
                pooled[c] = in[c];
                where[c] = place;
            }
        else
            compare(in, sign, pooled, where, place, length);
        first = 0;
    }
    for (int64_t c = 0; c < length; c++)
        places[c] = (uint8_t)(int32_t)where[c];
}

/* Pool x [images, height, width, channels]; `places` tells which of the nine values of a window was taken. */
void pool_forward(const Maps *maps, const real *x, const real *sign, real *pooled, uint8_t *places) {
    const int64_t rows = (maps->height + 1) / 2, columns = (maps->width + 1) / 2, channels = maps->channels;
#pragma omp parallel num_threads(maps->threads)
    {
        int64_t first, end;
        share(maps->images * rows, &first, &end);
        for (int64_t r = first; r < end; r++) {
            const real *image = x + r / rows * maps->height * maps->width * channels;
            for (int64_t column = 0; column < columns; column++)
                for (int64_t c = 0; c < channels; c += CHUNK) {
                    const int64_t out = (r * columns + column) * channels + c;
                    find(maps, image + c, sign + c, r % rows, column, smaller(CHUNK, channels - c), pooled + out,
                         places + out);
                }
        }
    }
}

/* Give the gradient of one output pixel to the place it was taken from. */
static void give(const Maps *maps, real *image, const real *restrict scale, const real *restrict grad_pooled,
                 const uint8_t *restrict places, int64_t row, int64_t column, int64_t length) {
    real share_of[CHUNK], where[CHUNK];
    for (int64_t c = 0; c < length; c++)
        share_of[c] = grad_pooled[c] * scale[c];
    for (int64_t c = 0; c < length; c++)
        where[c] = (int32_t)places[c];
    for (int64_t place = 0; place < 9; place++) {
        const int64_t y = 2 * row - 1 + place / 3, x = 2 * column - 1 + place % 3;
        if (y < 0 || x < 0 || y >= maps->height || x >= maps->width)
            continue;
        real *restrict to = image + (y * maps->width + x) * maps->channels;
        const real here = place;
        for (int64_t c = 0; c < length; c++)
            to[c] += where[c] == here ? share_of[c] : 0;
    }
}

/* grad <- x * by_x + constant, by channel, and where a value was taken its grad_pooled * scale. */
void pool_backward(const Maps *maps, const real *x, const real *scale, const real *by_x, const real *constant,
                   const real *grad_pooled, const uint8_t *places, real *grad) {
    const int64_t rows = (maps->height + 1) / 2, columns = (maps->width + 1) / 2, channels = maps->channels;
#pragma omp parallel num_threads(maps->threads)
    {
        int64_t first, end;
        share(maps->images, &first, &end);
        for (int64_t image = first; image < end; image++) {
            const int64_t start = image * maps->height * maps->width * channels;
            int64_t filled = 0; /* pixels; a row of the result reaches one row further than twice its number */
            for (int64_t row = 0; row < rows; row++) {
                for (; filled < smaller(2 * row + 2, maps->height) * maps->width; filled++) {
                    const real *restrict in = x + start + filled * channels;
                    real *restrict out = grad + start + filled * channels;
                    for (int64_t c = 0; c < channels; c++)
                        out[c] = in[c] * by_x[c] + constant[c];
                }
                for (int64_t column = 0; column < columns; column++)
                    for (int64_t c = 0; c < channels; c += CHUNK) {
                        const int64_t from = ((image * rows + row) * columns + column) * channels + c;
                        give(maps, grad + start + c, scale + c, grad_pooled + from, places + from, row, column,
                             smaller(CHUNK, channels - c));
                    }
            }
        }
    }
}
