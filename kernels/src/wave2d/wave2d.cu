// One step of the wave equation: see mod.rs. A thread per owned cell; x of the grid runs along y of the block, where the cells of a warp are
// neighbours in memory.

template <class T>
__device__ void step(In<T> u, InOut<T> next, Array<u32, 2> dims, T courant_squared) {
    u32 y = blockIdx.x * blockDim.x + threadIdx.x;
    u32 x = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= dims[0] || y >= dims[1]) return;
    u64 row = dims[1] + 2;
    u64 at = (x + 1) * row + y + 1;
    T curvature = u[at - row] + u[at + row] + u[at - 1] + u[at + 1] - T(4) * u[at];
    next[at] = T(2) * u[at] - next[at] + courant_squared * curvature;
}

KERNEL wave2d_f32(In<f32> u, InOut<f32> next, Array<u32, 2> dims, f32 courant_squared, Grid grid) {
    step(u, next, dims, courant_squared);
}
KERNEL wave2d_f64(In<f64> u, InOut<f64> next, Array<u32, 2> dims, f64 courant_squared, Grid grid) {
    step(u, next, dims, courant_squared);
}
