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
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef DOUBLE
typedef double real;
#else
typedef float real;
#endif

#define CHUNK 1024

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

extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

/* The blocks of one thread. There may be fewer threads than were asked for. */
static void share(int64_t blocks, int64_t *first, int64_t *end) {
    const int64_t me = omp_get_thread_num(), threads = omp_get_num_threads();
    *first = blocks * me / threads;
    *end = blocks * (me + 1) / threads;
}

static inline real exponential(real x) {
#ifdef DOUBLE
    return exp(x);
#else
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounded to a whole number */
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;   /* Cephes' expf */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
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

/* Normalise one step of a chunk. */
static inline void normalise(const real *restrict x, const real *restrict scale, const real *restrict shift,
                             int64_t per_value, real *restrict out, int64_t length) {
    if (!scale)
        memcpy(out, x, length * sizeof(real));
    else if (per_value)
        for (int64_t i = 0; i < length; i++)
            out[i] = x[i] * scale[i] + shift[i];
    else {
        const real a = *scale, b = *shift;
        for (int64_t i = 0; i < length; i++)
            out[i] = x[i] * a + b;
    }
}

/* Charge membranes v with currents u; the result replaces the currents. */
static inline void charge(const Layer *layer, real *restrict u, const real *restrict v, int64_t length) {
    const real tau = layer->tau, rest = layer->rest;
    if (layer->decay_input)
        for (int64_t i = 0; i < length; i++)
            u[i] = (u[i] - (v[i] - rest)) / tau + v[i];
    else
        for (int64_t i = 0; i < length; i++)
            u[i] = (v[i] - (v[i] - rest) / tau) + u[i];
}

/* Reset membranes u to v; write spikes where there is room for them. */
static inline void fire(const Layer *layer, const real *restrict u, real *restrict v, real *restrict spikes,
                        int64_t length) {
    const real threshold = layer->threshold, rest = layer->rest;
    if (spikes)
        for (int64_t i = 0; i < length; i++)
            spikes[i] = u[i] >= threshold ? 1 : 0;
    if (layer->hard_reset)
        for (int64_t i = 0; i < length; i++)
            v[i] = u[i] >= threshold ? rest : u[i];
    else
        for (int64_t i = 0; i < length; i++)
            v[i] = u[i] >= threshold ? u[i] - threshold : u[i];
}

/* Spikes [T, n] of input [T, n] (or [n]); `state` [n] holds first and last membranes, or is NULL: start from rest. */
void lif_forward(const Layer *layer, const real *x, const real *scale, const real *shift, real *state, real *spikes) {
    const int64_t blocks = (layer->values + layer->block - 1) / layer->block;
#pragma omp parallel num_threads(layer->threads)
    {
        int64_t first, end;
        share(blocks, &first, &end);
        real u[CHUNK], v[CHUNK];
        for (int64_t b = first; b < end; b++) {
            const int64_t stop = (b + 1) * layer->block < layer->values ? (b + 1) * layer->block : layer->values;
            for (int64_t i = b * layer->block; i < stop; i += CHUNK) {
                const int64_t length = stop - i < CHUNK ? stop - i : CHUNK;
                const int64_t c = layer->per_value ? i - b * layer->block : b % layer->channels;
                for (int64_t j = 0; j < length; j++)
                    v[j] = state ? state[i + j] : (real)layer->rest;
                for (int64_t t = 0; t < layer->steps; t++) {
                    normalise(x + t * layer->step_stride + i, scale ? scale + c : NULL, scale ? shift + c : NULL,
                              layer->per_value, u, length);
                    charge(layer, u, v, length);
                    fire(layer, u, v, spikes + t * layer->values + i, length);
                }
                if (state)
                    memcpy(state + i, v, length * sizeof(real));
            }
        }
    }
}

/* Back-propagate one chunk: `u` [T, length] are membranes, `grad` takes the gradient of the normalised input. */
static void backward_chunk(const Layer *layer, const real *u, const real *grad_spikes, real *grad, real *slope,
                           real *carry, int64_t length) {
    const real threshold = layer->threshold, rest = layer->rest;
    const real keep = layer->keep, gain = layer->decay_input ? (real)(1 / layer->tau) : 1;
    const int64_t out_stride = layer->step_stride ? layer->values : 0;
    memset(carry, 0, length * sizeof(real));
    for (int64_t t = layer->steps - 1; t >= 0; t--) {
        const real *restrict m = u + t * length;
        const real *restrict gs = grad_spikes + t * layer->values;
        real *restrict g = grad + t * out_stride;
        slopes(layer, m, slope, length);
        if (layer->detach_reset && layer->hard_reset)
            for (int64_t i = 0; i < length; i++)
                carry[i] = gs[i] * slope[i] + (m[i] >= threshold ? 0 : carry[i]);
        else if (layer->detach_reset)
            for (int64_t i = 0; i < length; i++)
                carry[i] = gs[i] * slope[i] + carry[i];
        else if (layer->hard_reset)
            for (int64_t i = 0; i < length; i++)
                carry[i] = gs[i] * slope[i] + carry[i] * ((m[i] >= threshold ? 0 : 1) + (rest - m[i]) * slope[i]);
        else
            for (int64_t i = 0; i < length; i++)
                carry[i] = gs[i] * slope[i] + carry[i] * (1 - threshold * slope[i]);
        if (!out_stride && t < layer->steps - 1)
            for (int64_t i = 0; i < length; i++)
                g[i] += carry[i] * gain;
        else
            for (int64_t i = 0; i < length; i++)
                g[i] = carry[i] * gain;
        for (int64_t i = 0; i < length; i++)
            carry[i] *= keep;
    }
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
        real v[CHUNK], slope[CHUNK];
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
                for (int64_t t = 0; t < layer->steps; t++) {
                    real *m = u + t * length;
                    normalise(x + t * layer->step_stride + i, scale ? scale + c : NULL, scale ? shift + c : NULL,
                              layer->per_value, m, length);
                    charge(layer, m, v, length);
                    fire(layer, m, v, NULL, length);
                }
                backward_chunk(layer, u, grad_spikes + i, grad + i, slope, v, length);
                for (int64_t t = 0; mine && t < (layer->step_stride ? layer->steps : 1); t++)
                    add_up(layer, x + t * layer->step_stride + i, grad + t * layer->values + i, mine + c,
                           mine + layer->channels + c, length);
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
