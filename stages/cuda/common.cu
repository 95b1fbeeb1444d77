// What all kernels share. They are written in what C and CUDA C++ have in common, so that a compiler for C builds the same
// text for tests on machines without a card: it defines the words below by loops over a block's threads. Therefore
//   - what a thread does stands in EACH_THREAD(t) { ... }, where `continue` ends it;
//   - BARRIER() stands between two of these, never inside one;
//   - what passes from one to the next lies in SHARED memory.
// Planes are float, contiguous, [.., h, w]. Indices that depend on data are bounded, also for NaN.

#ifndef EACH_THREAD
#define KERNEL extern "C" __global__ void
#define PART static __device__
#define CALLED static __device__ __noinline__  // compiled once, since it is called from many places
#define SHARED __shared__
#define EACH_THREAD(t) for (int t = threadIdx.x, t##_runs = 1; t##_runs; t##_runs = 0)
#define BARRIER() __syncthreads()
#define COUNT_UP(at) atomicAdd(&(at), 1)
#endif

#define BLOCK 256   // threads of a block: engine/cuda_kernels.py
#define CHUNK 1024  // cells that a block adds up: moment_lock.py

PART int between(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

// v in [low, high]; low for NaN
PART float held(float v, float low, float high) { return fminf(fmaxf(v, low), high); }

PART float mixed(float a, float b, float t) { return a + t * (b - a); }

// Adds up BLOCK numbers in shared memory; the sum is sums[0] for every thread, in the same order at every launch.
PART void add_up(double *sums) {
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        BARRIER();
        EACH_THREAD(t) {
            if (t < half) sums[t] += sums[t + half];
        }
    }
    BARRIER();
}
