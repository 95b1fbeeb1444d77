// The locks, and fusion with them: formulas/moment_lock.py and fusion.py. A first kernel adds up moments over chunks of a channel, a second one adds up the
// chunks, each block anew, and applies the lock. Moments are float64, which costs little for so few cells and spares a
// second pass over them: no digits of float32 are lost where a variance is the difference of two moments.

#define RADIUS 2  // of the local mean, cells
#define NOTHING 1e-6

// The mean over 5 x 5 cells around cell p, with replicated edges.
PART float low(const float *plane, int h, int w, int p) {
    int x = p % w, y = p / w;
    float sum = 0.0f;
    for (int j = -RADIUS; j <= RADIUS; ++j) {
        const float *row = plane + between(y + j, 0, h - 1) * w;
        for (int i = -RADIUS; i <= RADIUS; ++i) sum += row[between(x + i, 0, w - 1)];
    }
    return sum / (float)((2 * RADIUS + 1) * (2 * RADIUS + 1));
}

// Adds up `count` moments of every chunk. all [chunks, count] -> sums[i][0]
PART void gather(const double *all, int chunks, int count, double sums[][BLOCK]) {
    EACH_THREAD(t) {
        for (int i = 0; i < count; ++i) {
            sums[i][t] = 0.0;
            for (int k = t; k < chunks; k += BLOCK) sums[i][t] += all[k * count + i];
        }
    }
    for (int i = 0; i < count; ++i) add_up(sums[i]);
}

PART void store(double *all, int chunk, int count, double sums[][BLOCK]) {
    for (int i = 0; i < count; ++i) add_up(sums[i]);
    EACH_THREAD(t) {
        if (t < count) all[chunk * count + t] = sums[t][0];
    }
}

// moments [b c, chunks, 4]: of the details of z and z_ref [b, c, h, w], sum and sum of squares. Grid: (chunks, b c).
KERNEL detail_moments(const float *z, const float *z_ref, double *moments, int h, int w) {
    SHARED double sums[4][BLOCK];
    int n = h * w;
    const float *own = z + (long long)blockIdx.y * n, *other = z_ref + (long long)blockIdx.y * n;
    EACH_THREAD(t) {
        double s = 0.0, s2 = 0.0, r = 0.0, r2 = 0.0;
        for (int p = blockIdx.x * CHUNK + t; p < n && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            double d = own[p] - low(own, h, w, p), e = other[p] - low(other, h, w, p);
            s += d, s2 += d * d, r += e, r2 += e * e;
        }
        sums[0][t] = s, sums[1][t] = s2, sums[2][t] = r, sums[3][t] = r2;
    }
    store(moments + (long long)blockIdx.y * gridDim.x * 4, blockIdx.x, 4, sums);
}

PART double deviation(double sum, double squares, int n) {
    double variance = (squares - sum * sum / n) / (n - 1);
    return sqrt(variance < 0.0 ? 0.0 : variance);
}

// The gain of the entry lock, of the gathered moments of a channel of n cells.
PART float entry_gain(double sums[][BLOCK], int n) {
    double own = deviation(sums[0][0], sums[1][0], n), other = deviation(sums[2][0], sums[3][0], n);
    double wide = own / (other < NOTHING ? NOTHING : other);
    return wide > 1.0 ? 1.0f : (float)wide;
}

// Cell p of a channel of z_ref after the entry lock.
PART float locked(const float *z, const float *z_ref, float gain, int h, int w, int p) {
    return low(z, h, w, p) + gain * (z_ref[p] - low(z_ref, h, w, p));
}

// The entry lock. Grid: (chunks, b c).
KERNEL lock_to_source(const float *z, const float *z_ref, const double *moments, float *out, int h, int w) {
    SHARED double sums[4][BLOCK];
    int n = h * w;
    long long first = (long long)blockIdx.y * n;
    gather(moments + (long long)blockIdx.y * gridDim.x * 4, gridDim.x, 4, sums);
    EACH_THREAD(t) {
        float gain = entry_gain(sums, n);
        for (int p = blockIdx.x * CHUNK + t; p < n && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK)
            out[first + p] = locked(z + first, z_ref + first, gain, h, w, p);
    }
}

// Entry fusion, as `fuse_at_entry`. moments: null for no lock. Grid: (chunks, c).
KERNEL fuse_at_entry(const float *z, const float *z_ref, const double *moments, const float *noise,
                     const float *noise_ref, const float *trust, const float *weight, float *out, int h, int w,
                     float rho, float alpha, float sigma, float inner_strength) {
    SHARED double sums[4][BLOCK];
    int n = h * w;
    long long first = (long long)blockIdx.y * n;
    if (moments) gather(moments + (long long)blockIdx.y * gridDim.x * 4, gridDim.x, 4, sums);
    EACH_THREAD(t) {
        float gain = moments ? entry_gain(sums, n) : 1.0f;
        for (int p = blockIdx.x * CHUNK + t; p < n && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            float share = trust[p] * weight[0], v = noise[first + p];
            float ref = moments ? locked(z + first, z_ref + first, gain, h, w, p) : z_ref[first + p];
            float x0 = mixed(z[first + p], ref, share);
            if (noise_ref != noise || rho != 1.0f) {
                float both = share * rho;
                float own = sqrtf(fmaxf(1.0f - share * share + both * both, 0.0f)) - both;
                if (inner_strength != 1.0f) own = fmaxf(1.0f - share, inner_strength * own);
                v = share * noise_ref[first + p] + own * v;
            }
            out[first + p] = sigma == 0.0f ? alpha * x0 : alpha * x0 + sigma * v;
        }
    }
}

// x0 fused with x0_ref by the weight, if there is a reference.
PART float fused(const float *x0, const float *x0_ref, float trust, const float *weight, long long p) {
    return x0_ref ? mixed(x0[p], x0_ref[p], trust * weight[0]) : x0[p];
}

// moments [c, chunks, 5]: sums of m, m x, m x^2, m x0, m x0^2. x [c, n] is x0 fused with x0_ref; without a reference it
// is `given`. Grid: (chunks, c).
KERNEL trusted_moments(const float *x0, const float *x0_ref, const float *given, const float *trust, const float *weight,
                       double *moments, int n) {
    SHARED double sums[5][BLOCK];
    long long first = (long long)blockIdx.y * n;
    EACH_THREAD(t) {
        double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0, s4 = 0.0;
        for (int p = blockIdx.x * CHUNK + t; p < n && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            double m = trust[p], x = given ? given[first + p] : fused(x0, x0_ref, trust[p], weight, first + p);
            double own = x0[first + p];
            s0 += m, s1 += m * x, s2 += m * x * x, s3 += m * own, s4 += m * own * own;
        }
        sums[0][t] = s0, sums[1][t] = s1, sums[2][t] = s2, sums[3][t] = s3, sums[4][t] = s4;
    }
    store(moments + (long long)blockIdx.y * gridDim.x * 5, blockIdx.x, 5, sums);
}

PART double spread(double total, double weights, double sum, double squares) {
    double mean = sum / total, variance = (squares - 2.0 * mean * sum + mean * mean * weights) / total;
    return sqrt(variance < 0.0 ? 0.0 : variance);
}

// The exit lock, as `lock_to_prediction`. before [c]: gain of the last frame, or null; after [c]: that of this one.
KERNEL lock_to_prediction(const float *x0, const float *x0_ref, const float *given, const float *trust,
                          const float *weight, const double *moments, const float *before, float *after, float *out,
                          int n, float smallest, float largest, float exit, float rate, float coverage, float drift) {
    SHARED double sums[5][BLOCK];
    long long first = (long long)blockIdx.y * n;
    gather(moments + (long long)blockIdx.y * gridDim.x * 5, gridDim.x, 5, sums);
    EACH_THREAD(t) {
        double weights = sums[0][0], total = weights < NOTHING ? NOTHING : weights, mean = sums[1][0] / total;
        double wide = (spread(total, weights, sums[3][0], sums[4][0]) + NOTHING) /
                      (spread(total, weights, sums[1][0], sums[2][0]) + NOTHING);
        double now = wide < smallest ? smallest : wide > largest ? largest : wide;
        double old = before ? before[blockIdx.y] : now, ratio = now / old;
        int near = ratio <= 1.0 + drift && ratio >= 1.0 / (1.0 + drift);  // not for NaN, which so lasts for one frame only
        float gain = (float)(near && weights >= (double)coverage * n ? old + rate * (now - old) : now);
        float share = exit * (gain - 1.0f);
        if (t == 0 && blockIdx.x == 0) after[blockIdx.y] = gain;
        for (int p = blockIdx.x * CHUNK + t; p < n && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            float x = given ? given[first + p] : fused(x0, x0_ref, trust[p], weight, first + p);
            out[first + p] = x + share * (x - (float)mean) * trust[p];
        }
    }
}
