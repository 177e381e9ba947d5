// One Jacobi step: see sweep.rs. A thread per owned cell; x of the grid runs along z of the block, where the cells of a warp
// are neighbours in memory.

// The bits of the absolute value as an integer, in whose order NaN is above all.
__device__ u32 magnitude(f32 value) { return __float_as_uint(fabsf(value)); }
__device__ u64 magnitude(f64 value) { return __double_as_longlong(fabs(value)); }

// Never fused with an addition, so that the result is that of the other sources.
__device__ f32 times(f32 a, f32 b) { return __fmul_rn(a, b); }
__device__ f64 times(f64 a, f64 b) { return __dmul_rn(a, b); }

template <class T>
__device__ void sweep(In<T> u, InOut<T> unew, Zeroed<T> residual, Array<u32, 3> dims) {
    u32 z = blockIdx.x * blockDim.x + threadIdx.x;
    u32 y = blockIdx.y * blockDim.y + threadIdx.y;
    u32 x = blockIdx.z * blockDim.z + threadIdx.z;
    auto change = magnitude(T(0));
    if (x < dims[0] && y < dims[1] && z < dims[2]) {
        u64 step_y = dims[2] + 2;
        u64 step_x = (dims[1] + 2) * step_y;
        u64 at = (x + 1) * step_x + (y + 1) * step_y + (z + 1);
        T sum = u[at - step_x] + u[at + step_x] + u[at - step_y] + u[at + step_y] + u[at - 1] + u[at + 1];
        T mean = times(sum, T(1) / T(6));
        change = magnitude(mean - u[at]);
        unew[at] = mean;
    }
    for (int step = 16; step > 0; step /= 2) {
        auto other = __shfl_xor_sync(0xffffffff, change, step);
        change = change > other ? change : other;
    }
    u32 thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    // What is read may be old, but only ever too small. Few warps find a larger change than all before.
    auto largest = reinterpret_cast<decltype(change)*>(residual.data);
    if (thread % 32 == 0 && change > *largest) {
        atomicMax(largest, change);
    }
}

KERNEL jacobi3d_f32(In<f32> u, InOut<f32> unew, Zeroed<f32> residual, Array<u32, 3> dims, Grid grid) {
    sweep(u, unew, residual, dims);
}

KERNEL jacobi3d_f64(In<f64> u, InOut<f64> unew, Zeroed<f64> residual, Array<u32, 3> dims, Grid grid) {
    sweep(u, unew, residual, dims);
}
