// Bytes to planes of floats and back: formulas/pixels.py.

// pixels [n, 3] -> rgb [3, n] in [0, 1]
KERNEL planes_of(const unsigned char *pixels, float *rgb, int n) {
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (p >= n) continue;
        for (int c = 0; c < 3; ++c) rgb[c * n + p] = (float)pixels[3 * p + c] * (1.0f / 255.0f);
    }
}

// rgb [c, n] -> pixels [n, c], rounded to the nearest, halves to the even level
KERNEL bytes_of(const float *rgb, unsigned char *pixels, int channels, int n) {
    EACH_THREAD(t) {
        int p = blockIdx.x * BLOCK + t;
        if (p >= n) continue;
        for (int c = 0; c < channels; ++c)
            pixels[channels * p + c] = (unsigned char)held(rintf(rgb[c * n + p] * 255.0f), 0.0f, 255.0f);
    }
}
