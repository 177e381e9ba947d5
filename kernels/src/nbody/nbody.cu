// Gravity: see mod.rs. A thread a target. A block goes over the sources in tiles, of which each thread loads one body.

constexpr u32 TILE = 128;

__device__ f32 root(f32 x) { return sqrtf(x); }
__device__ f64 root(f64 x) { return sqrt(x); }

template <class T>
using Body = Array<T, 4>;

template <class T>
__device__ void accelerate(In<Body<T>> targets, In<Body<T>> sources, InOut<Body<T>> accelerations, T softening_squared) {
    __shared__ Body<T> tile[TILE];
    u64 target = u64(blockIdx.x) * TILE + threadIdx.x;
    bool is_there = target < targets.len;
    Body<T> at = {};
    if (is_there) at = targets[target];
    T sum[3] = {};
    for (u64 start = 0; start < sources.len; start += TILE) {
        u32 count = u32(min(u64(TILE), sources.len - start));
        if (threadIdx.x < count) tile[threadIdx.x] = sources[start + threadIdx.x];
        __syncthreads();
        for (u32 i = 0; i < count; ++i) {
            T dx = tile[i][0] - at[0], dy = tile[i][1] - at[1], dz = tile[i][2] - at[2];
            T inverse = T(1) / root(dx * dx + dy * dy + dz * dz + softening_squared);
            T factor = tile[i][3] * inverse * inverse * inverse;
            sum[0] += factor * dx;
            sum[1] += factor * dy;
            sum[2] += factor * dz;
        }
        __syncthreads();
    }
    if (!is_there) return;
    for (u32 axis = 0; axis < 3; ++axis) accelerations[target].at[axis] += sum[axis];
}

KERNEL BLOCK(128) nbody_f32(
    In<Array<f32, 4>> targets, In<Array<f32, 4>> sources, InOut<Array<f32, 4>> accelerations, f32 softening_squared, Grid grid) {
    accelerate(targets, sources, accelerations, softening_squared);
}
KERNEL BLOCK(128) nbody_f64(
    In<Array<f64, 4>> targets, In<Array<f64, 4>> sources, InOut<Array<f64, 4>> accelerations, f64 softening_squared, Grid grid) {
    accelerate(targets, sources, accelerations, softening_squared);
}
