// Counts by bin: see mod.rs. Threads go on by the size of the grid. A block counts in shared memory, if that has as many bins, and adds
// what it has at the end.

constexpr u32 SHARED_BINS = 2048;

template <class T>
__device__ void histogram(In<T> x, Zeroed<u32> counts, T low, T bins_per_unit) {
    __shared__ u32 own[SHARED_BINS];
    bool is_shared = counts.len <= SHARED_BINS;
    if (is_shared) {
        for (u32 bin = threadIdx.x; bin < counts.len; bin += blockDim.x) own[bin] = 0;
        __syncthreads();
    }
    u32* all = is_shared ? own : counts.data;
    u64 threads = u64(gridDim.x) * blockDim.x;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < x.len; i += threads) {
        T bin = (x[i] - low) * bins_per_unit;
        // Not so for NaN.
        if (bin >= T(0) && bin < T(counts.len)) atomicAdd(&all[u64(bin)], 1);
    }
    if (is_shared) {
        __syncthreads();
        for (u32 bin = threadIdx.x; bin < counts.len; bin += blockDim.x) {
            if (own[bin] > 0) atomicAdd(&counts[bin], own[bin]);
        }
    }
}

KERNEL BLOCK(256) histogram_f32(In<f32> x, Zeroed<u32> counts, f32 low, f32 bins_per_unit, Grid grid) {
    histogram(x, counts, low, bins_per_unit);
}
KERNEL BLOCK(256) histogram_f64(In<f64> x, Zeroed<u32> counts, f64 low, f64 bins_per_unit, Grid grid) {
    histogram(x, counts, low, bins_per_unit);
}
