// Backward warping: formulas/backward_warp.py.

// Where a bilinear sample reads: four indices of a plane, and the fractions.
typedef struct {
    int p0, p1, q0, q1;
    float tx, ty;
} Place;

PART Place place_at(float px, float py, int h, int w) {
    px = held(px, 0.0f, (float)(w - 1)), py = held(py, 0.0f, (float)(h - 1));
    int x = (int)px, y = (int)py;
    int right = x + 1 < w ? x + 1 : x, below = y + 1 < h ? y + 1 : y;
    Place place = {y * w + x, y * w + right, below * w + x, below * w + right, px - (float)x, py - (float)y};
    return place;
}

// The sample p + flow(p) of pixel (x, y), with replicated edges. flow [2, h, w]
PART Place pulled(const float *flow, int x, int y, int h, int w) {
    return place_at((float)x + flow[y * w + x], (float)y + flow[h * w + y * w + x], h, w);
}

PART float bilinear(const float *plane, Place at) {
    return mixed(mixed(plane[at.p0], plane[at.p1], at.tx), mixed(plane[at.q0], plane[at.q1], at.tx), at.ty);
}

// Keys' kernel with a = -0.75: the weights of four neighbours at the fraction t.
PART void cubic(float t, float *weights) {
    const float a = -0.75f;
    float far = t + 1.0f, near = 1.0f - t, last = 2.0f - t;
    weights[0] = ((a * far - 5.0f * a) * far + 8.0f * a) * far - 4.0f * a;
    weights[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    weights[2] = ((a + 2.0f) * near - (a + 3.0f)) * near * near + 1.0f;
    weights[3] = ((a * last - 5.0f * a) * last + 8.0f * a) * last - 4.0f * a;
}

PART float between_zero_and_one(float v, int clamped) { return clamped ? held(v, 0.0f, 1.0f) : v; }

// prev, out [b, c, h, w]; flow [b or 1, 2, h, w], of which rows are `flow_row` floats apart. Grid: (pixels, b).
// Bilinear for given_back 0; else with its detail restored, as `sharpened`.
KERNEL warp(const float *prev, const float *flow, float *out, int channels, int h, int w, int flow_row,
            float given_back, int clamped) {
    const float *field = flow + (long long)blockIdx.y * flow_row;
    EACH_THREAD(t) {
        int n = h * w, p = blockIdx.x * BLOCK + t, x = p % w, y = p / w;
        if (p >= n) continue;
        int inner = given_back != 0.0f && x > 0 && x < w - 1 && y > 0 && y < h - 1;
        Place own = pulled(field, x, y, h, w), left = own, right = own, above = own, below = own;
        float gx = 0.0f, gy = 0.0f;
        if (inner) {
            left = pulled(field, x - 1, y, h, w), right = pulled(field, x + 1, y, h, w);
            above = pulled(field, x, y - 1, h, w), below = pulled(field, x, y + 1, h, w);
            float tx = fabsf(field[p] - truncf(field[p])), ty = fabsf(field[n + p] - truncf(field[n + p]));
            gx = given_back * (tx - tx * tx), gy = given_back * (ty - ty * ty);
        }
        for (int c = 0; c < channels; ++c) {
            long long first = ((long long)blockIdx.y * channels + c) * n;
            const float *plane = prev + first;
            float v = bilinear(plane, own), sharp = v;
            if (inner) {
                sharp -= gx * ((bilinear(plane, right) - v) - (v - bilinear(plane, left)));
                sharp -= gy * ((bilinear(plane, below) - v) - (v - bilinear(plane, above)));
            }
            out[first + p] = between_zero_and_one(sharp, clamped);
        }
    }
}

// As `warp`, bicubic.
KERNEL warp_bicubic(const float *prev, const float *flow, float *out, int channels, int h, int w, int flow_row,
                    int clamped) {
    const float *field = flow + (long long)blockIdx.y * flow_row;
    EACH_THREAD(t) {
        int n = h * w, p = blockIdx.x * BLOCK + t, x = p % w, y = p / w;
        if (p >= n) continue;
        // Beyond two pixels outside all neighbours are the edge.
        float px = held((float)x + field[p], -2.0f, (float)(w + 1));
        float py = held((float)y + field[n + p], -2.0f, (float)(h + 1));
        int x0 = (int)floorf(px), y0 = (int)floorf(py), columns[4];
        float across[4], down[4];
        cubic(px - (float)x0, across);
        cubic(py - (float)y0, down);
        for (int i = 0; i < 4; ++i) columns[i] = between(x0 - 1 + i, 0, w - 1);
        for (int c = 0; c < channels; ++c) {
            long long first = ((long long)blockIdx.y * channels + c) * n;
            float sum = 0.0f;
            for (int j = 0; j < 4; ++j) {
                const float *row = prev + first + between(y0 - 1 + j, 0, h - 1) * w;
                float line = 0.0f;
                for (int i = 0; i < 4; ++i) line += across[i] * row[columns[i]];
                sum += down[j] * line;
            }
            out[first + p] = between_zero_and_one(sum, clamped);
        }
    }
}
