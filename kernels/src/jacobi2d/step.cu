// One Jacobi step: see step.rs. A thread per owned cell; x of the grid runs along y of the block, where the cells of a warp are
// neighbours in memory.

// The bits of the absolute value as an integer, in whose order NaN is above all.
__device__ u32 magnitude(f32 value) { return __float_as_uint(fabsf(value)); }
__device__ u64 magnitude(f64 value) { return __double_as_longlong(fabs(value)); }

template <class T>
__device__ void step(In<T> u, InOut<T> unew, Zeroed<T> residual, Array<u32, 2> dims) {
    u32 y = blockIdx.x * blockDim.x + threadIdx.x;
    u32 x = blockIdx.y * blockDim.y + threadIdx.y;
    auto change = magnitude(T(0));
    if (x < dims[0] && y < dims[1]) {
        u64 row = dims[1] + 2;
        u64 at = (x + 1) * row + y + 1;
        T mean = (u[at - row] + u[at + row] + u[at - 1] + u[at + 1]) * T(0.25);
        change = magnitude(mean - u[at]);
        unew[at] = mean;
    }
    for (int step = 16; step > 0; step /= 2) {
        auto other = __shfl_xor_sync(0xffffffff, change, step);
        change = change > other ? change : other;
    }
    // What is read may be old, but only ever too small. Few warps find a larger change than all before.
    auto largest = reinterpret_cast<decltype(change)*>(residual.data);
    if ((threadIdx.y * blockDim.x + threadIdx.x) % 32 == 0 && change > *largest) {
        atomicMax(largest, change);
    }
}

KERNEL jacobi2d_f32(In<f32> u, InOut<f32> unew, Zeroed<f32> residual, Array<u32, 2> dims, Grid grid) {
    step(u, unew, residual, dims);
}
KERNEL jacobi2d_f64(In<f64> u, InOut<f64> unew, Zeroed<f64> residual, Array<u32, 2> dims, Grid grid) {
    step(u, unew, residual, dims);
}
