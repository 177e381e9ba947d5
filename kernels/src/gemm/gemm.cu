// c = alpha a b + beta c: see mod.rs. A thread an element of c, x of the grid along its rows. A block goes along k in tiles.

constexpr u32 TILE = 16;

template <class T>
__device__ void gemm(In<T> a, In<T> b, InOut<T> c, Array<u32, 3> dims, T alpha, T beta) {
    // A column more, so that the threads of a warp read different banks.
    __shared__ T tile_a[TILE][TILE + 1];
    __shared__ T tile_b[TILE][TILE];
    u32 m = dims[0], n = dims[1], k = dims[2];
    u32 x = threadIdx.x, y = threadIdx.y;
    u64 row = u64(blockIdx.y) * TILE + y;
    u64 column = u64(blockIdx.x) * TILE + x;
    T sum = 0;
    for (u32 start = 0; start < k; start += TILE) {
        tile_a[y][x] = row < m && start + x < k ? a[row * k + start + x] : T(0);
        tile_b[y][x] = column < n && start + y < k ? b[u64(start + y) * n + column] : T(0);
        __syncthreads();
#pragma unroll
        for (u32 i = 0; i < TILE; ++i) sum += tile_a[y][i] * tile_b[i][x];
        __syncthreads();
    }
    if (row < m && column < n) {
        T before = beta == T(0) ? T(0) : beta * c[row * n + column];
        c[row * n + column] = alpha * sum + before;
    }
}

KERNEL BLOCK(16, 16) gemm_f32(In<f32> a, In<f32> b, InOut<f32> c, Array<u32, 3> dims, f32 alpha, f32 beta, Grid grid) {
    gemm(a, b, c, dims, alpha, beta);
}
KERNEL BLOCK(16, 16) gemm_f64(In<f64> a, In<f64> b, InOut<f64> c, Array<u32, 3> dims, f64 alpha, f64 beta, Grid grid) {
    gemm(a, b, c, dims, alpha, beta);
}
