// Resizing, and luma: formulas/downscale.py.

// The mean over the pixels (or halved pixels) that a halved pixel is made of: two each way, three of an odd side.
PART float halved(const float *plane, int h, int w, int x, int y) {
    int across = w % 2 ? 3 : 2, down = h % 2 ? 3 : 2;
    float sum = 0.0f;
    for (int j = 0; j < down; ++j)
        for (int i = 0; i < across; ++i) sum += plane[(2 * y + j) * w + 2 * x + i];
    return sum / (float)(across * down);
}

PART float halved_twice(const float *plane, int h, int w, int x, int y) {
    int across = w / 2 % 2 ? 3 : 2, down = h / 2 % 2 ? 3 : 2;
    float sum = 0.0f;
    for (int j = 0; j < down; ++j)
        for (int i = 0; i < across; ++i) sum += halved(plane, h, w, 2 * x + i, 2 * y + j);
    return sum / (float)(across * down);
}

// Pixel p of a plane [h, w] that was halved 0, 1 or 2 times.
CALLED float shade(const float *plane, int h, int w, int halvings, int p) {
    if (halvings == 0) return plane[p];
    if (halvings == 1) return halved(plane, h, w, p % (w / 2), p / (w / 2));
    return halved_twice(plane, h, w, p % (w / 2 / 2), p / (w / 2 / 2));
}

// Where pixel p of a picture [h2, w2] lies in one [h, w]. Of the same size: at p exactly.
PART Place scaled_place(int p, int h, int w, int h2, int w2) {
    float px = ((float)(p % w2) + 0.5f) * ((float)w / (float)w2) - 0.5f;
    float py = ((float)(p / w2) + 0.5f) * ((float)h / (float)h2) - 0.5f;
    return place_at(px, py, h, w);
}

// Pixel p of a plane [h, w] halved 0 to 2 times and then resized bilinearly to [h2, w2], without antialiasing.
PART float resized(const float *plane, int h, int w, int halvings, int h2, int w2, int p) {
    Place at = scaled_place(p, h >> halvings, w >> halvings, h2, w2);
    float p0 = shade(plane, h, w, halvings, at.p0), p1 = shade(plane, h, w, halvings, at.p1);
    float q0 = shade(plane, h, w, halvings, at.q0), q1 = shade(plane, h, w, halvings, at.q1);
    return mixed(mixed(p0, p1, at.tx), mixed(q0, q1, at.tx), at.ty);
}

// x [planes, h, w] -> out [planes, h2, w2], `resized`; even planes times `even`, odd ones times `odd`.
// Grid: (pixels of out, planes).
KERNEL resize(const float *x, float *out, int h, int w, int halvings, int h2, int w2, float even, float odd) {
    const float *plane = x + (long long)blockIdx.y * h * w;
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (p >= h2 * w2) continue;
        out[(long long)blockIdx.y * h2 * w2 + p] = resized(plane, h, w, halvings, h2, w2, p) * (blockIdx.y % 2 ? odd : even);
    }
}

PART float luma(const float *rgb, int h, int w, int halvings, int p) {
    int n = h * w;
    return 0.299f * shade(rgb, h, w, halvings, p) + 0.587f * shade(rgb + n, h, w, halvings, p) +
           0.114f * shade(rgb + 2 * n, h, w, halvings, p);
}

// rgb [3, h, w] -> gray [h2, w2], the luma of the halved picture, bilinear; and small [3, h3, w3], `resized`, or null.
// Grid: (pixels of the larger, 1 and as many as small has planes).
KERNEL seen(const float *rgb, unsigned char *gray, float *small, int h, int w, int halvings, int h2, int w2,
            int small_halvings, int h3, int w3) {
    const float *plane = rgb + ((long long)blockIdx.y - 1) * h * w;
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (blockIdx.y > 0) {
            if (p < h3 * w3) small[(blockIdx.y - 1) * h3 * w3 + p] = resized(plane, h, w, small_halvings, h3, w3, p);
        } else if (p < h2 * w2) {
            Place at = scaled_place(p, h >> halvings, w >> halvings, h2, w2);
            float p0 = luma(rgb, h, w, halvings, at.p0), p1 = luma(rgb, h, w, halvings, at.p1);
            float q0 = luma(rgb, h, w, halvings, at.q0), q1 = luma(rgb, h, w, halvings, at.q1);
            float y = mixed(mixed(p0, p1, at.tx), mixed(q0, q1, at.tx), at.ty);
            gray[p] = (unsigned char)held(rintf(y * 255.0f), 0.0f, 255.0f);
        }
    }
}
