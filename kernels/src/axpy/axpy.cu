// y = a x + y: see mod.rs. Threads go on by the size of the grid.

template <class T>
__device__ void axpy(T a, In<T> x, InOut<T> y) {
    u64 all = u64(gridDim.x) * blockDim.x;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < y.len; i += all) {
        y[i] += a * x[i];
    }
}

KERNEL axpy_f32(f32 a, In<f32> x, InOut<f32> y, Grid grid) { axpy(a, x, y); }
KERNEL axpy_f64(f64 a, In<f64> x, InOut<f64> y, Grid grid) { axpy(a, x, y); }
