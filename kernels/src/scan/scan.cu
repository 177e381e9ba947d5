// Scans of chunks: see mod.rs. A block of 256 threads for each chunk of 1024 elements: a thread adds up four neighbours, the block scans
// the sums of its threads, and each thread goes over its four again.

constexpr u32 THREADS = 256;
constexpr u32 EACH = 4;
constexpr u64 CHUNK = THREADS * EACH;

template <class T>
__device__ void scan_chunks(In<T> x, Out<T> sums, Out<T> totals, u32 inclusive) {
    __shared__ T scanned[THREADS];
    u32 thread = threadIdx.x;
    u64 start = u64(blockIdx.x) * CHUNK + thread * EACH;
    T own[EACH];
    T sum = 0;
    for (u32 i = 0; i < EACH; ++i) {
        own[i] = start + i < x.len ? x[start + i] : T(0);
        sum += own[i];
    }
    scanned[thread] = sum;
    __syncthreads();
    for (u32 step = 1; step < THREADS; step *= 2) {
        T before = thread >= step ? scanned[thread - step] : T(0);
        __syncthreads();
        scanned[thread] += before;
        __syncthreads();
    }
    T running = thread > 0 ? scanned[thread - 1] : T(0);
    for (u32 i = 0; i < EACH; ++i) {
        T before = running;
        running += own[i];
        if (start + i < sums.len) sums[start + i] = inclusive ? running : before;
    }
    if (thread == THREADS - 1) totals[blockIdx.x] = scanned[thread];
}

template <class T>
__device__ void add_offsets(InOut<T> sums, In<T> offsets) {
    T offset = offsets[blockIdx.x];
    u64 end = min((u64(blockIdx.x) + 1) * CHUNK, sums.len);
    for (u64 i = u64(blockIdx.x) * CHUNK + threadIdx.x; i < end; i += THREADS) sums[i] += offset;
}

KERNEL BLOCK(256) scan_chunks_u32(In<u32> x, Out<u32> sums, Out<u32> totals, u32 inclusive, Grid grid) {
    scan_chunks(x, sums, totals, inclusive);
}
KERNEL BLOCK(256) scan_chunks_f32(In<f32> x, Out<f32> sums, Out<f32> totals, u32 inclusive, Grid grid) {
    scan_chunks(x, sums, totals, inclusive);
}
KERNEL BLOCK(256) scan_chunks_f64(In<f64> x, Out<f64> sums, Out<f64> totals, u32 inclusive, Grid grid) {
    scan_chunks(x, sums, totals, inclusive);
}

KERNEL BLOCK(256) add_offsets_u32(InOut<u32> sums, In<u32> offsets, Grid grid) { add_offsets(sums, offsets); }
KERNEL BLOCK(256) add_offsets_f32(InOut<f32> sums, In<f32> offsets, Grid grid) { add_offsets(sums, offsets); }
KERNEL BLOCK(256) add_offsets_f64(InOut<f64> sums, In<f64> offsets, Grid grid) { add_offsets(sums, offsets); }
