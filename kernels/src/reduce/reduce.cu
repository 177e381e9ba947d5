// Reductions of chunks: see mod.rs. A block for each chunk of 4096 elements, in the order that mod.rs says: a thread is a lane.

constexpr u32 LANES = 256;
constexpr u64 CHUNK = 4096;

template <class T>
struct Sum {
    __device__ T operator()(T a, T b) const { return a + b; }
};

// The smaller one, or a NaN.
template <class T>
struct Min {
    __device__ T operator()(T a, T b) const { return a < b || a != a ? a : b; }
};

// The larger one, or a NaN.
template <class T>
struct Max {
    __device__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

__device__ f32 infinity(f32) { return __int_as_float(0x7f800000); }
__device__ f64 infinity(f64) { return __longlong_as_double(0x7ff0000000000000); }

// The value of the chunk, from that of this thread's lane.
template <class T, class Both>
__device__ void merge(T lane, Out<T> partial, Both both) {
    __shared__ T lanes[LANES];
    u32 thread = threadIdx.x;
    lanes[thread] = lane;
    for (u32 half = LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) lanes[thread] = both(lanes[thread], lanes[thread + half]);
    }
    if (thread == 0 && blockIdx.x < partial.len) partial[blockIdx.x] = lanes[0];
}

__device__ u64 first() { return u64(blockIdx.x) * CHUNK + threadIdx.x; }
__device__ u64 end(u64 len) { return min((u64(blockIdx.x) + 1) * CHUNK, len); }

template <class T, class Both>
__device__ void reduce(In<T> x, Out<T> partial, T identity, Both both) {
    T lane = identity;
    for (u64 i = first(); i < end(x.len); i += LANES) lane = both(lane, x[i]);
    merge(lane, partial, both);
}

template <class T>
__device__ void dot(In<T> x, In<T> y, Out<T> partial) {
    T lane = 0;
    for (u64 i = first(); i < end(x.len); i += LANES) lane += x[i] * y[i];
    merge(lane, partial, Sum<T>());
}

KERNEL BLOCK(256) sum_f32(In<f32> x, Out<f32> partial, Grid grid) { reduce(x, partial, f32(0), Sum<f32>()); }
KERNEL BLOCK(256) sum_f64(In<f64> x, Out<f64> partial, Grid grid) { reduce(x, partial, f64(0), Sum<f64>()); }

KERNEL BLOCK(256) min_f32(In<f32> x, Out<f32> partial, Grid grid) { reduce(x, partial, infinity(f32()), Min<f32>()); }
KERNEL BLOCK(256) min_f64(In<f64> x, Out<f64> partial, Grid grid) { reduce(x, partial, infinity(f64()), Min<f64>()); }

KERNEL BLOCK(256) max_f32(In<f32> x, Out<f32> partial, Grid grid) { reduce(x, partial, -infinity(f32()), Max<f32>()); }
KERNEL BLOCK(256) max_f64(In<f64> x, Out<f64> partial, Grid grid) { reduce(x, partial, -infinity(f64()), Max<f64>()); }

KERNEL BLOCK(256) dot_f32(In<f32> x, In<f32> y, Out<f32> partial, Grid grid) { dot(x, y, partial); }
KERNEL BLOCK(256) dot_f64(In<f64> x, In<f64> y, Out<f64> partial, Grid grid) { dot(x, y, partial); }
