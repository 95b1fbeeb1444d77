// Confidence masks: formulas/confidence_mask.py.

#define TILE 16   // side of the square of pixels of a block in `grown`
#define REACH 8   // longest radius of each of its two filters: confidence_mask.py

// m [b, h, w]: the confidence, times `unique` if that is given; sums [b, blocks]: its sum over each block, before that.
// check 0: none, 1: squared, 2: norm. most, width: sum of differences up to which a pixel is trusted, and its fall to 0.
KERNEL confidence(const float *flow, const float *back, const float *cur, const float *prev, const float *unique,
                  float *m, double *sums, int channels, int h, int w, int check, float slope, float offset, float most,
                  float width) {
    SHARED double trusted[BLOCK];
    int n = h * w;
    const float *f = flow + (long long)blockIdx.y * 2 * n, *b = back + (long long)blockIdx.y * 2 * n;
    const float *ours = cur + (long long)blockIdx.y * channels * n, *theirs = prev + (long long)blockIdx.y * channels * n;
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t, x = p % w, y = p / w;
        trusted[t] = 0.0;
        if (p >= n) continue;
        Place at = pulled(f, x, y, h, w);
        float apart = 0.0f;
        for (int c = 0; c < channels; ++c) apart += fabsf(ours[c * n + p] - bilinear(theirs + c * n, at));
        float v = width > 0.0f ? held((most + width - apart) / width, 0.0f, 1.0f) : apart <= most ? 1.0f : 0.0f;
        float fx = f[p], fy = f[n + p];
        int inside = fabsf(fx + (float)x - 0.5f * (float)(w - 1)) <= 0.5f * (float)w &&
                     fabsf(fy + (float)y - 0.5f * (float)(h - 1)) <= 0.5f * (float)h;
        if (check && inside) {
            float bx = bilinear(b, at), by = bilinear(b + n, at);
            float gap2 = (fx + bx) * (fx + bx) + (fy + by) * (fy + by), f2 = fx * fx + fy * fy, b2 = bx * bx + by * by;
            inside = check == 1 ? gap2 <= slope * (f2 + b2) + offset
                                : sqrtf(gap2) <= slope * (sqrtf(f2) + sqrtf(b2)) + offset;
        }
        v = inside ? v : 0.0f;
        trusted[t] = v;
        m[(long long)blockIdx.y * n + p] = unique ? v * unique[(long long)blockIdx.y * n + p] : v;
    }
    add_up(trusted);
    EACH_THREAD(t) {
        if (t == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = trusted[0];
    }
}

// m, out [b, h, w]: low values dilated by `dilate` and blurred over `feather`, each at most REACH. If sums are given, the
// result is 0 for the first frame of another shot (`same_shot`), for which b is 1. Grid: (tiles across, down, b).
KERNEL grown(const float *m, float *out, int h, int w, int dilate, int feather, const double *sums, int count,
             const float *colours, const float *colours_prev, int colour_count, float cut_coverage, float cut_colour) {
    SHARED float near[TILE + 4 * REACH][TILE + 4 * REACH], eroded[TILE + 2 * REACH][TILE + 2 * REACH];
    SHARED double coverage[BLOCK], distance[BLOCK];
    SHARED float taps[2 * REACH + 1];
    const float *plane = m + (long long)blockIdx.z * h * w;
    int left = blockIdx.x * TILE, top = blockIdx.y * TILE, reach = dilate + feather;
    int side = TILE + 2 * reach, inner = TILE + 2 * feather;
    EACH_THREAD(t) {
        for (int i = t; i < side * side; i += BLOCK) {
            int x = left - reach + i % side, y = top - reach + i / side;
            near[i / side][i % side] = x >= 0 && x < w && y >= 0 && y < h ? plane[y * w + x] : 2.0f;
        }
        coverage[t] = distance[t] = 0.0;
        for (int i = t; sums && i < count; i += BLOCK) coverage[t] += sums[i];
        for (int i = t; sums && i < colour_count; i += BLOCK) distance[t] += fabsf(colours[i] - colours_prev[i]);
        if (t == 0) {
            float tap = 1.0f;
            for (int i = 0; i < 2 * feather; ++i) tap *= 0.5f;
            for (int i = 0; i <= 2 * feather; ++i) {  // binomial coefficients
                taps[i] = tap;
                tap = tap * (float)(2 * feather - i) / (float)(i + 1);
            }
        }
    }
    add_up(coverage);
    add_up(distance);
    EACH_THREAD(t) {
        for (int i = t; i < inner * inner; i += BLOCK) {
            // The blur replicates the edges of what is eroded.
            int x = between(left - feather + i % inner, 0, w - 1) - left + reach;
            int y = between(top - feather + i / inner, 0, h - 1) - top + reach;
            float least = 2.0f;
            for (int j = -dilate; j <= dilate; ++j)
                for (int k = -dilate; k <= dilate; ++k) least = fminf(least, near[y + j][x + k]);
            eroded[i / inner][i % inner] = least;
        }
    }
    BARRIER();
    EACH_THREAD(t) {
        int x = left + t % TILE, y = top + t / TILE;
        if (x >= w || y >= h) continue;
        float sum = 0.0f;
        for (int j = 0; j <= 2 * feather; ++j) {
            float line = 0.0f;
            for (int i = 0; i <= 2 * feather; ++i) line += taps[i] * eroded[t / TILE + j][t % TILE + i];
            sum += taps[j] * line;
        }
        if (sums && coverage[0] / (double)(h * w) < cut_coverage && distance[0] > 2.0 * cut_colour) sum = 0.0f;
        out[(long long)blockIdx.z * h * w + y * w + x] = sum;
    }
}

// trust [b, h, w] -> out [b, h / factor, w / factor], as `reduce_to_latent`. norm 0: the minimum. Grid: (cells, b).
KERNEL reduce_to_latent(const float *trust, float *out, int h, int w, int factor, float norm) {
    int across = w / factor, n = across * (h / factor);
    const float *plane = trust + (long long)blockIdx.y * h * w;
    EACH_THREAD(t) {
        int cell = blockIdx.x * BLOCK + t;
        if (cell >= n) continue;
        const float *corner = plane + (cell / across) * factor * w + (cell % across) * factor;
        float least = corner[0], sum = 0.0f;
        for (int y = 0; y < factor; ++y)
            for (int x = 0; x < factor; ++x) {
                float v = corner[y * w + x], lack = 1.0f - v;
                least = fminf(least, v);
                sum += norm == 2.0f ? lack * lack : norm == 1.0f ? lack : norm == 0.0f ? 0.0f : powf(lack, norm);
            }
        float mean = sum / (float)(factor * factor);
        float lack = norm == 2.0f ? sqrtf(mean) : norm == 1.0f ? mean : powf(mean, 1.0f / norm);
        out[(long long)blockIdx.y * n + cell] = norm == 0.0f ? least : 1.0f - lack;
    }
}

// rgb [3, h, w] -> shares [512], the histogram of eight shades a channel of every `every`-th pixel both ways. One block.
KERNEL colour_histogram(const float *rgb, float *shares, int h, int w, int every) {
    SHARED int counts[512];
    int across = (w + every - 1) / every, n = across * ((h + every - 1) / every);
    EACH_THREAD(t) {
        counts[t] = counts[t + BLOCK] = 0;
    }
    BARRIER();
    EACH_THREAD(t) {
        for (int i = t; i < n; i += BLOCK) {
            int p = (i / across) * every * w + (i % across) * every, index = 0;
            for (int c = 0; c < 3; ++c) index = 8 * index + (int)held(rgb[c * h * w + p] * 8.0f, 0.0f, 7.0f);
            COUNT_UP(counts[index]);
        }
    }
    BARRIER();
    EACH_THREAD(t) {
        shares[t] = (float)counts[t] / (float)n;
        shares[t + BLOCK] = (float)counts[t + BLOCK] / (float)n;
    }
}
