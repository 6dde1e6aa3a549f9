/* LIF layers on a CPU, with the batch normalisation before them: one pass forward, two passes backward.
 *
 * A tensor is [T, n] in memory, n being any order of batch, channels and pixels. It is cut into blocks. The channel of
 * a value is that of its block (maps stored channel by channel, `per_value` = 0) or follows from its place in the block
 * (channels stored last, `per_value` = 1; the constants are then repeated over the block). Nothing is kept for the
 * backward pass but the input: membranes are computed again, in the cache.
 *
 * Compiled twice, for float and, with -DDOUBLE, for double. Keep -ffp-contract=off: spikes must not depend on it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

typedef struct {
    int64_t steps;       /* T */
    int64_t step_stride; /* values between the steps of the input; 0 for one image shown in every step */
    int64_t values;      /* n */
    int64_t block;       /* values per block */
    int64_t channels;    /* constants there are: channels, or values per block */
    int64_t per_value;
    int64_t threads;
    int64_t hard_reset, decay_input, detach_reset, surrogate;
    double tau, keep, threshold, rest, alpha; /* keep: what a gradient keeps per step back */
} Layer;

#ifdef FP_FAST_FMAF
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

static inline real exponential(real x) {
#ifdef DOUBLE
    return exp(x);
#else
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = MULTIPLY_ADD(x, 1.44269504f, 12582912.0f) - 12582912.0f; /* rounded to a whole number */
    float r = MULTIPLY_ADD(n, 2.12194440e-4f, MULTIPLY_ADD(n, -0.693359375f, x)); /* Cephes' expf */
    float p = 1.9875691500e-4f;
    p = MULTIPLY_ADD(p, r, 1.3981999507e-3f);
    p = MULTIPLY_ADD(p, r, 8.3334519073e-3f);
    p = MULTIPLY_ADD(p, r, 4.1665795894e-2f);
    p = MULTIPLY_ADD(p, r, 1.6666665459e-1f);
    p = MULTIPLY_ADD(p, r, 5.0000001201e-1f);
    p = MULTIPLY_ADD(p * r, r, r) + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)n + 127) << 23};
    return p * power.value;
#endif
}

/* Turn membranes into surrogate derivatives. */
static void slopes(const Layer *layer, const real *restrict u, real *restrict out, int64_t length) {
    const real threshold = layer->threshold, alpha = layer->alpha;
    switch (layer->surrogate) {
    case 0:
        for (int64_t i = 0; i < length; i++) {
            real s = 1 / (1 + exponential(-alpha * (u[i] - threshold)));
            out[i] = alpha * s * (1 - s);
        }
        break;
    case 1:
        for (int64_t i = 0; i < length; i++) {
            real x = (real)1.5707963267948966 * alpha * (u[i] - threshold);
            out[i] = alpha / 2 / (1 + x * x);
        }
        break;
    case 2:
        for (int64_t i = 0; i < length; i++) {
            real x = u[i] - threshold;
            real height = 1 - alpha * (x < 0 ? -x : x);
            out[i] = height > 0 ? alpha * height : 0;
        }
        break;
    default:
        for (int64_t i = 0; i < length; i++) {
            real x = u[i] - threshold;
            out[i] = (x < 0 ? -x : x) < (real)0.5 / alpha ? alpha : 0;
        }
    }
}

/* The constants of a chunk by value, in `own` where they are one and the same or there are none. */
static inline const real *by_value(const Layer *layer, const real *constants, int64_t c, real none, real *own,
                                   int64_t length) {
    if (constants && layer->per_value)
        return constants + c;
    for (int64_t i = 0; i < length; i++)
        own[i] = constants ? constants[c] : none;
    return own;
}

/* Normalise one step of a chunk, charge membranes v and reset them; `u` are membranes before the reset, or NULL, and
 * `spikes` spikes, or NULL. */
static inline __attribute__((always_inline)) void run(const Layer *layer, const real *restrict x,
                                                      const real *restrict scale, const real *restrict shift,
                                                      real *restrict v, real *restrict u, real *restrict spikes,
                                                      int64_t length, const int decay_input, const int exact,
                                                      const int hard_reset) {
    const real tau = layer->tau, inverse = 1 / tau, rest = layer->rest, threshold = layer->threshold;
    for (int64_t i = 0; i < length; i++) {
        real current = x[i] * scale[i] + shift[i], above = v[i] - rest, m;
        if (decay_input)
            m = (exact ? (current - above) * inverse : (current - above) / tau) + v[i];
        else
            m = (v[i] - (exact ? above * inverse : above / tau)) + current;
        if (u)
            u[i] = m;
        if (spikes)
            spikes[i] = m >= threshold ? 1 : 0;
        v[i] = m >= threshold ? (hard_reset ? rest : m - threshold) : m;
    }
}

/* The same for the constants of the layer: dividing by a power of two is multiplying by its inverse. */
static inline __attribute__((always_inline)) void step(const Layer *layer, const real *x, const real *scale,
                                                       const real *shift, real *v, real *u, real *spikes,
                                                       int64_t length) {
    int exponent;
    const int exact = isinf(layer->tau) || frexp(layer->tau, &exponent) == 0.5;
    switch ((layer->decay_input ? 4 : 0) + (exact ? 2 : 0) + (layer->hard_reset ? 1 : 0)) {
    case 0: run(layer, x, scale, shift, v, u, spikes, length, 0, 0, 0); break;
    case 1: run(layer, x, scale, shift, v, u, spikes, length, 0, 0, 1); break;
    case 2: run(layer, x, scale, shift, v, u, spikes, length, 0, 1, 0); break;
    case 3: run(layer, x, scale, shift, v, u, spikes, length, 0, 1, 1); break;
    case 4: run(layer, x, scale, shift, v, u, spikes, length, 1, 0, 0); break;
    case 5: run(layer, x, scale, shift, v, u, spikes, length, 1, 0, 1); break;
    case 6: run(layer, x, scale, shift, v, u, spikes, length, 1, 1, 0); break;
    default: run(layer, x, scale, shift, v, u, spikes, length, 1, 1, 1);
    }
}

/* Spikes [T, n] of input [T, n] (or [n]); `state` [n] holds first and last membranes, or is NULL: start from rest. */
void lif_forward(const Layer *layer, const real *x, const real *scale, const real *shift, real *state, real *spikes) {
    const int64_t blocks = (layer->values + layer->block - 1) / layer->block;
#pragma omp parallel num_threads(layer->threads)
    {
        int64_t first, end;
        share(blocks, &first, &end);
        real v[CHUNK], scales[CHUNK], shifts[CHUNK];
        for (int64_t b = first; b < end; b++) {
            const int64_t stop = (b + 1) * layer->block < layer->values ? (b + 1) * layer->block : layer->values;
            for (int64_t i = b * layer->block; i < stop; i += CHUNK) {
                const int64_t length = stop - i < CHUNK ? stop - i : CHUNK;
                const int64_t c = layer->per_value ? i - b * layer->block : b % layer->channels;
                for (int64_t j = 0; j < length; j++)
                    v[j] = state ? state[i + j] : (real)layer->rest;
                const real *factor = by_value(layer, scale, c, 1, scales, length);
                const real *term = by_value(layer, shift, c, 0, shifts, length);
                for (int64_t t = 0; t < layer->steps; t++)
                    step(layer, x + t * layer->step_stride + i, factor, term, v, NULL, spikes + t * layer->values + i,
                         length);
                if (state)
                    memcpy(state + i, v, length * sizeof(real));
            }
        }
    }
}

/* Back-propagate through one step of a chunk. `carry` holds the gradient of the membranes after it and takes that of the
 * membranes before it; `sums` and `products` collect the gradient of the normalised input and its product with x. */
static inline __attribute__((always_inline)) void back(const Layer *layer, const real *restrict m,
                                                       const real *restrict slope, const real *restrict grad_spikes,
                                                       const real *restrict x, real *restrict carry,
                                                       real *restrict grad, real *restrict sums,
                                                       real *restrict products, int64_t length, const int detach_reset,
                                                       const int hard_reset, const int adds) {
    const real threshold = layer->threshold, rest = layer->rest;
    const real keep = layer->keep, gain = layer->decay_input ? (real)(1 / layer->tau) : 1;
    for (int64_t i = 0; i < length; i++) {
        real later = carry[i];
        if (hard_reset && detach_reset)
            later = m[i] >= threshold ? 0 : later;
        else if (hard_reset)
            later *= (m[i] >= threshold ? 0 : 1) + (rest - m[i]) * slope[i];
        else if (!detach_reset)
            later *= 1 - threshold * slope[i];
        later += grad_spikes[i] * slope[i];
        carry[i] = later * keep;
        later *= gain;
        grad[i] = adds ? grad[i] + later : later;
        sums[i] += later;
        products[i] += later * x[i];
    }
}

/* Back-propagate one chunk: `u` [T, length] are membranes, `grad` takes the gradient of the normalised input. */
static void backward_chunk(const Layer *layer, const real *x, const real *u, const real *grad_spikes, real *grad,
                           real *sums, real *products, int64_t length) {
    real slope[CHUNK], carry[CHUNK] = {0};
    for (int64_t t = layer->steps - 1; t >= 0; t--) {
        const int adds = !layer->step_stride && t < layer->steps - 1;
        const real *m = u + t * length, *gs = grad_spikes + t * layer->values, *in = x + t * layer->step_stride;
        real *g = grad + (layer->step_stride ? t * layer->values : 0);
        slopes(layer, m, slope, length);
        switch ((layer->detach_reset ? 4 : 0) + (layer->hard_reset ? 2 : 0) + adds) {
        case 0: back(layer, m, slope, gs, in, carry, g, sums, products, length, 0, 0, 0); break;
        case 1: back(layer, m, slope, gs, in, carry, g, sums, products, length, 0, 0, 1); break;
        case 2: back(layer, m, slope, gs, in, carry, g, sums, products, length, 0, 1, 0); break;
        case 3: back(layer, m, slope, gs, in, carry, g, sums, products, length, 0, 1, 1); break;
        case 4: back(layer, m, slope, gs, in, carry, g, sums, products, length, 1, 0, 0); break;
        case 5: back(layer, m, slope, gs, in, carry, g, sums, products, length, 1, 0, 1); break;
        case 6: back(layer, m, slope, gs, in, carry, g, sums, products, length, 1, 1, 0); break;
        default: back(layer, m, slope, gs, in, carry, g, sums, products, length, 1, 1, 1);
        }
    }
}

/* Add what a chunk collected to the sums by channel. */
static void collect(const Layer *layer, const real *restrict from, double *restrict to, int64_t length) {
    if (layer->per_value) {
        for (int64_t i = 0; i < length; i++)
            to[i] += from[i];
        return;
    }
    double parts[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= length; i += 8)
        for (int64_t j = 0; j < 8; j++)
            parts[j] += from[i + j];
    for (; i < length; i++)
        parts[0] += from[i];
    for (int64_t j = 0; j < 8; j++)
        *to += parts[j];
}

/* Add up gradients, and their products with the input, by channel. */
static void add_up(const Layer *layer, const real *restrict x, const real *restrict grad, double *restrict sums,
                   double *restrict products, int64_t length) {
    if (layer->per_value) {
        for (int64_t i = 0; i < length; i++) {
            sums[i] += grad[i];
            products[i] += (double)grad[i] * x[i];
        }
        return;
    }
    for (int64_t start = 0; start < length; start += CHUNK) { /* few enough for the precision of `real` */
        const int64_t stop = start + CHUNK < length ? start + CHUNK : length;
        real s[16] = {0}, p[16] = {0};
        int64_t i = start;
        for (; i + 16 <= stop; i += 16)
            for (int64_t j = 0; j < 16; j++) {
                s[j] += grad[i + j];
                p[j] += grad[i + j] * x[i + j];
            }
        for (; i < stop; i++) {
            s[0] += grad[i];
            p[0] += grad[i] * x[i];
        }
        for (int64_t j = 0; j < 16; j++) {
            *sums += s[j];
            *products += p[j];
        }
    }
}

/* Gradients [T, n] (or [n]) of the normalised input; `sums` [threads, 2, channels] if the input is normalised. */
int lif_backward(const Layer *layer, const real *x, const real *scale, const real *shift, const real *grad_spikes,
                 real *grad, double *sums) {
    const int64_t blocks = (layer->values + layer->block - 1) / layer->block;
    int failed = 0;
#pragma omp parallel num_threads(layer->threads)
    {
        int64_t first, end;
        share(blocks, &first, &end);
        double *mine = sums ? sums + omp_get_thread_num() * 2 * layer->channels : NULL;
        real v[CHUNK], scales[CHUNK], shifts[CHUNK];
        real *u = malloc(layer->steps * CHUNK * sizeof(real));
        if (!u) {
#pragma omp atomic write
            failed = 1;
            end = first;
        }
        for (int64_t b = first; b < end; b++) {
            const int64_t stop = (b + 1) * layer->block < layer->values ? (b + 1) * layer->block : layer->values;
            for (int64_t i = b * layer->block; i < stop; i += CHUNK) {
                const int64_t length = stop - i < CHUNK ? stop - i : CHUNK;
                const int64_t c = layer->per_value ? i - b * layer->block : b % layer->channels;
                for (int64_t j = 0; j < length; j++)
                    v[j] = (real)layer->rest;
                const real *factor = by_value(layer, scale, c, 1, scales, length);
                const real *term = by_value(layer, shift, c, 0, shifts, length);
                for (int64_t t = 0; t < layer->steps; t++)
                    step(layer, x + t * layer->step_stride + i, factor, term, v, u + t * length, NULL, length);
                real added[CHUNK] = {0}, products[CHUNK] = {0};
                backward_chunk(layer, x + i, u, grad_spikes + i, grad + i, added, products, length);
                if (mine) {
                    collect(layer, added, mine + c, length);
                    collect(layer, products, mine + layer->channels + c, length);
                }
            }
        }
        free(u);
    }
    return failed;
}

/* Sums and sums of squares by channel of the input [T, n] (or [n]) into `sums` [threads, 2, channels]. */
void sum_channels(const Layer *layer, const real *x, double *sums) {
    const int64_t blocks = (layer->values + layer->block - 1) / layer->block;
#pragma omp parallel num_threads(layer->threads)
    {
        int64_t first, end;
        share(blocks, &first, &end);
        double *mine = sums + omp_get_thread_num() * 2 * layer->channels;
        for (int64_t t = 0; t < (layer->step_stride ? layer->steps : 1); t++)
            for (int64_t b = first; b < end; b++) {
                const int64_t i = b * layer->block;
                const int64_t length = layer->values - i < layer->block ? layer->values - i : layer->block;
                const int64_t c = layer->per_value ? 0 : b % layer->channels;
                const real *block = x + t * layer->step_stride + i;
                add_up(layer, block, block, mine + c, mine + layer->channels + c, length);
            }
    }
}

/* grad <- grad * by_grad + x * by_x + constant, each by channel: the gradient before the normalisation, in place. */
void denormalise(const Layer *layer, const real *x, const real *by_grad, const real *by_x, const real *constant,
                 real *grad) {
    const int64_t blocks = (layer->values + layer->block - 1) / layer->block;
#pragma omp parallel num_threads(layer->threads)
    {
        int64_t first, end;
        share(blocks, &first, &end);
        for (int64_t t = 0; t < (layer->step_stride ? layer->steps : 1); t++)
            for (int64_t b = first; b < end; b++) {
                const int64_t i = b * layer->block;
                const int64_t length = layer->values - i < layer->block ? layer->values - i : layer->block;
                const real *restrict in = x + t * layer->step_stride + i;
                real *restrict g = grad + t * layer->values + i;
                if (layer->per_value) {
                    for (int64_t j = 0; j < length; j++)
                        g[j] = g[j] * by_grad[j] + (in[j] * by_x[j] + constant[j]);
                } else {
                    const real a = by_grad[b % layer->channels], c = by_x[b % layer->channels];
                    const real k = constant[b % layer->channels];
                    for (int64_t j = 0; j < length; j++)
                        g[j] = g[j] * a + (in[j] * c + k);
                }
            }
    }
}
