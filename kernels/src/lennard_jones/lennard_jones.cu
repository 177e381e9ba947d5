// Forces of a Lennard-Jones potential: see mod.rs. A thread a target. A block goes over the sources in tiles, of which each thread loads
// one particle.

constexpr u32 TILE = 64;

template <class T>
using Particle = Array<T, 4>;

template <class T>
__device__ void add_forces(
    In<Particle<T>> targets, In<Particle<T>> sources, InOut<Particle<T>> forces, Array<T, 3> shift, Array<T, 4> potential, u32 same) {
    __shared__ Particle<T> tile[TILE];
    T epsilon = potential[0], sigma_squared = potential[1], cutoff_squared = potential[2], at_cutoff = potential[3];
    u64 target = u64(blockIdx.x) * TILE + threadIdx.x;
    bool is_there = target < targets.len;
    Particle<T> at = {};
    if (is_there) at = targets[target];
    T sum[4] = {};
    for (u64 start = 0; start < sources.len; start += TILE) {
        u32 count = u32(min(u64(TILE), sources.len - start));
        if (threadIdx.x < count) tile[threadIdx.x] = sources[start + threadIdx.x];
        __syncthreads();
        for (u32 i = 0; i < count; ++i) {
            T dx = at[0] - (tile[i][0] + shift[0]);
            T dy = at[1] - (tile[i][1] + shift[1]);
            T dz = at[2] - (tile[i][2] + shift[2]);
            T squared = dx * dx + dy * dy + dz * dz;
            if (squared >= cutoff_squared || (same && start + i == target)) continue;
            T inverse = T(1) / squared;
            T near = sigma_squared * inverse;
            T sixth = near * near * near;
            T factor = T(24) * epsilon * (T(2) * sixth * sixth - sixth) * inverse;
            sum[0] += factor * dx;
            sum[1] += factor * dy;
            sum[2] += factor * dz;
            sum[3] += T(0.5) * (T(4) * epsilon * (sixth * sixth - sixth) - at_cutoff);
        }
        __syncthreads();
    }
    if (!is_there) return;
    for (u32 part = 0; part < 4; ++part) forces[target].at[part] += sum[part];
}

KERNEL BLOCK(64) lennard_jones_f32(
    In<Array<f32, 4>> targets, In<Array<f32, 4>> sources, InOut<Array<f32, 4>> forces, Array<f32, 3> shift, Array<f32, 4> potential,
    u32 same, Grid grid) {
    add_forces(targets, sources, forces, shift, potential, same);
}
KERNEL BLOCK(64) lennard_jones_f64(
    In<Array<f64, 4>> targets, In<Array<f64, 4>> sources, InOut<Array<f64, 4>> forces, Array<f64, 3> shift, Array<f64, 4> potential,
    u32 same, Grid grid) {
    add_forces(targets, sources, forces, shift, potential, same);
}
