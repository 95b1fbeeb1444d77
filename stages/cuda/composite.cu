// Paint, colour table and lines: formulas/composite.py.

// The corner of a table [side, side, side, 3] with the indices (blue, green, red), each bounded.
PART const float *entry(const float *table, int side, int r, int g, int b) {
    int top = side - 1;
    return table + 3 * ((between(b, 0, top) * side + between(g, 0, top)) * side + between(r, 0, top));
}

// paint, out [3, n]; cover [n] or null; table [side, side, side, 3] or null; shares [5] of `shares_of`.
KERNEL composed(const float *paint, const float *cover, const float *table, const float *shares, float *out, int n,
                int side) {
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (p >= n) continue;
        float top = (float)(side - 1);
        float r = held(paint[p] * top, 0.0f, top), g = held(paint[n + p] * top, 0.0f, top);
        float b = held(paint[2 * n + p] * top, 0.0f, top);
        int i = (int)r, j = (int)g, k = (int)b;
        float tr = r - (float)i, tg = g - (float)j, tb = b - (float)k;
        for (int c = 0; c < 3; ++c) {
            float v = paint[c * n + p];
            if (table) {
                float p00 = mixed(entry(table, side, i, j, k)[c], entry(table, side, i + 1, j, k)[c], tr);
                float p10 = mixed(entry(table, side, i, j + 1, k)[c], entry(table, side, i + 1, j + 1, k)[c], tr);
                float p01 = mixed(entry(table, side, i, j, k + 1)[c], entry(table, side, i + 1, j, k + 1)[c], tr);
                float p11 = mixed(entry(table, side, i, j + 1, k + 1)[c], entry(table, side, i + 1, j + 1, k + 1)[c], tr);
                v = mixed(v, mixed(mixed(p00, p10, tg), mixed(p01, p11, tg), tb), shares[0]);
            }
            if (cover) v = mixed(v, shares[2 + c], shares[1] * cover[p]);
            out[c * n + p] = v;
        }
    }
}

// One value after coring: numbers [2] are weight and limit.
PART float cored_value(float x, float past, float trust, const float *numbers) {
    return x - numbers[0] * trust * held(x - past, -numbers[1], numbers[1]);
}

// x, past, out [channels, n]; trust [n]
KERNEL cored(const float *x, const float *past, const float *trust, const float *numbers, float *out, int channels, int n) {
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (p >= n) continue;
        for (int c = 0; c < channels; ++c) out[c * n + p] = cored_value(x[c * n + p], past[c * n + p], trust[p], numbers);
    }
}

// A pixel of the lines: x, or with a past x fused with it, as `fuse_lines`.
PART float line_at(const float *x, const float *past, const float *trust, const float *numbers, int coring, int p) {
    if (!past) return x[p];
    float v = mixed(x[p], past[p], trust[p] * numbers[0]);
    return coring ? cored_value(v, past[p], trust[p], numbers + 1) : v;
}

// The lines at p minus their mean over 3 x 3 pixels, with replicated edges.
PART float sharpness(const float *x, const float *past, const float *trust, const float *numbers, int coring, int h,
                     int w, int p) {
    float sum = 0.0f;
    for (int j = -1; j <= 1; ++j)
        for (int i = -1; i <= 1; ++i) {
            int at = between(p / w + j, 0, h - 1) * w + between(p % w + i, 0, w - 1);
            sum += line_at(x, past, trust, numbers, coring, at);
        }
    return line_at(x, past, trust, numbers, coring, p) - sum / 9.0f;
}

// energies [chunks, 2]: sums of the squares of the details of the lines and of `drawn` [h, w]. Grid: (chunks).
KERNEL detail_energies(const float *drawn, const float *x, const float *past, const float *trust, const float *numbers,
                       double *energies, int h, int w, int coring) {
    SHARED double sums[2][BLOCK];
    EACH_THREAD(t) {
        double own = 0.0, wanted = 0.0;
        for (int p = blockIdx.x * CHUNK + t; p < h * w && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            double a = sharpness(x, past, trust, numbers, coring, h, w, p);
            double b = sharpness(drawn, 0, 0, 0, 0, h, w, p);
            own += a * a, wanted += b * b;
        }
        sums[0][t] = own, sums[1][t] = wanted;
    }
    store(energies, blockIdx.x, 2, sums);
}

KERNEL as_sharp_as(const float *x, const float *past, const float *trust, const float *numbers, const double *energies,
                   float *out, int h, int w, int coring, float largest) {
    SHARED double sums[2][BLOCK];
    gather(energies, gridDim.x, 2, sums);
    EACH_THREAD(t) {
        double least = 1e-8 * h * w, own = sums[0][0] < least ? least : sums[0][0];
        float gain = held((float)sqrt(sums[1][0] / own), 1.0f, largest);
        for (int p = blockIdx.x * CHUNK + t; p < h * w && p < (int)(blockIdx.x + 1) * CHUNK; p += BLOCK) {
            float detail = sharpness(x, past, trust, numbers, coring, h, w, p);
            out[p] = held(line_at(x, past, trust, numbers, coring, p) + detail * (gain - 1.0f), 0.0f, 1.0f);
        }
    }
}
