// What CUDA C needs to be C++ of the host, for one block after the other. A thread of a block runs until it comes to a barrier; then the next
// one runs, and when all wait, all go on. So what is not ordered by a barrier happens in the worst order.

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

namespace host {

struct Three {
    unsigned x, y, z;
};

struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    Three index;
    bool is_done;
};

static std::vector<Thread> threads;
static Thread* current;
static ucontext_t scheduler;
static std::function<void()> body;
static Three block_index, grid_dim, block_dim;
static uint64_t exchanged[1024];

static void wait() { swapcontext(&current->context, &scheduler); }

static void run() {
    body();
    current->is_done = true;
    wait();
}

static void run_block() {
    unsigned count = block_dim.x * block_dim.y * block_dim.z;
    if (threads.size() < count) threads.resize(count);
    for (unsigned i = 0; i < count; ++i) {
        Thread& thread = threads[i];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = &scheduler;
        makecontext(&thread.context, run, 0);
        thread.index = {i % block_dim.x, i / block_dim.x % block_dim.y, i / block_dim.x / block_dim.y};
        thread.is_done = false;
    }
    for (bool are_done = false; !are_done;) {
        are_done = true;
        for (unsigned i = 0; i < count; ++i) {
            current = &threads[i];
            if (current->is_done) continue;
            swapcontext(&scheduler, &current->context);
            are_done = are_done && current->is_done;
        }
    }
}

// The next parameter of a struct.
template <class T>
static T take(const char* packed, size_t& at) {
    at = (at + alignof(T) - 1) / alignof(T) * alignof(T);
    T value;
    memcpy(static_cast<void*>(&value), packed + at, sizeof(T));
    at += sizeof(T);
    return value;
}

template <class... A>
static void launch(void (*kernel)(A...), const char* packed, const unsigned* grid, const unsigned* block) {
    grid_dim = {grid[0], grid[1], grid[2]};
    block_dim = {block[0], block[1], block[2]};
    size_t at = 0;
    std::tuple<A...> arguments{take<A>(packed, at)...};
    body = [&] { std::apply(kernel, arguments); };
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                block_index = {x, y, z};
                run_block();
            }
}

}  // namespace host

#define threadIdx (host::current->index)
#define blockIdx host::block_index
#define gridDim host::grid_dim
#define blockDim host::block_dim
#define __syncthreads host::wait

template <class T>
static T __shfl_xor_sync(unsigned, T value, int mask) {
    unsigned own = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    host::exchanged[own] = value;
    host::wait();
    T other = host::exchanged[own ^ mask];
    host::wait();
    return other;
}

template <class T>
static void atomicMax(T* place, T value) {
    if (*place < value) *place = value;
}
static void atomicAdd(unsigned* place, unsigned value) { *place += value; }

template <class T>
static T min(T a, T b) { return a < b ? a : b; }

template <class To, class From>
static To bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To same;
    memcpy(&same, &value, sizeof(To));
    return same;
}
static unsigned __float_as_uint(float value) { return bits<unsigned>(value); }
static long long __double_as_longlong(double value) { return bits<long long>(value); }
static float __int_as_float(int value) { return bits<float>(value); }
static double __longlong_as_double(long long value) { return bits<double>(value); }
static float __fmul_rn(float a, float b) { return a * b; }
static double __dmul_rn(double a, double b) { return a * b; }
