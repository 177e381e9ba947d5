// What stands before the CUDA C source of every kernel: the types of parameters, by the names they have in Rust.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
typedef float f32;
typedef double f64;

// A kernel: what the program calls by its name.
#define KERNEL extern "C" __global__ void

// `KERNEL BLOCK(x, y, z) name(..)`: one that is launched with blocks of exactly so many threads. Ones at the end may be left out.
#define BLOCK(...) __launch_bounds__(threads_of_block(__VA_ARGS__))
__device__ constexpr int threads_of_block(int x, int y = 1, int z = 1) { return x * y * z; }

// The number of elements that a launch covers; x is the fastest axis. There may be more threads.
struct Grid {
    u32 x, y, z;
};

// `[T; N]`.
template <class T, int N>
struct Array {
    T at[N];
    __device__ const T& operator[](int index) const { return at[index]; }
};

// A buffer that is read.
template <class T>
struct In {
    const T* data;
    u64 len;
    __device__ const T& operator[](u64 index) const { return data[index]; }
    __device__ explicit operator bool() const { return data; }
};

// A buffer that is written.
template <class T>
struct Written {
    T* data;
    u64 len;
    __device__ T& operator[](u64 index) const { return data[index]; }
    __device__ explicit operator bool() const { return data; }
};
// Of which every element is written, and none is read before.
template <class T>
struct Out : Written<T> {};
template <class T>
struct InOut : Written<T> {};
// Which is full of zeros.
template <class T>
struct Zeroed : Written<T> {};

// A buffer that may be absent: then it is false, and has no elements.
template <class B>
using Maybe = B;

// `N` buffers.
template <class B, int N>
struct Each {
    B at[N];
    __device__ const B& operator[](int index) const { return at[index]; }
};
