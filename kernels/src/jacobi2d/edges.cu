// Packing and unpacking edges: see edges.rs, which says how edges are numbered. A thread a cell of an edge, one edge after the other;
// those beyond the edges do nothing.

// Where cell `cell` of an edge stands in the padded array: among the block's own cells, or the ghosts beyond.
__device__ u64 place(Array<u32, 2> dims, u32 edge, bool ghost, u64 cell) {
    u64 row = dims[1] + 2;
    u64 across = edge < 2 ? row : 1, along = edge < 2 ? 1 : row;
    u64 depth = edge % 2 ? u64(edge < 2 ? dims[0] : dims[1]) + (ghost ? 1 : 0) : (ghost ? 0 : 1);
    return depth * across + (cell + 1) * along;
}

// Calls `copy(edge, cell)` for the cell of this thread.
template <class Copy>
__device__ void at_cell(Array<u32, 2> dims, Copy copy) {
    u64 cell = u64(blockIdx.x) * blockDim.x + threadIdx.x;
#pragma unroll
    for (u32 edge = 0; edge < 4; ++edge) {
        u64 len = edge < 2 ? dims[1] : dims[0];
        if (cell < len) {
            copy(edge, cell);
            return;
        }
        cell -= len;
    }
}

template <class T>
__device__ void pack(In<T> u, Each<Maybe<Out<T>>, 4> edges, Array<u32, 2> dims) {
    at_cell(dims, [&](u32 edge, u64 cell) {
        if (edges[edge]) edges[edge][cell] = u[place(dims, edge, false, cell)];
    });
}

template <class T>
__device__ void unpack(Each<Maybe<In<T>>, 4> edges, InOut<T> u, Array<u32, 2> dims) {
    at_cell(dims, [&](u32 edge, u64 cell) {
        if (edges[edge]) u[place(dims, edge, true, cell)] = edges[edge][cell];
    });
}

KERNEL pack_edges_f32(In<f32> u, Each<Maybe<Out<f32>>, 4> edges, Array<u32, 2> dims, Grid grid) { pack(u, edges, dims); }
KERNEL pack_edges_f64(In<f64> u, Each<Maybe<Out<f64>>, 4> edges, Array<u32, 2> dims, Grid grid) { pack(u, edges, dims); }

KERNEL unpack_edges_f32(Each<Maybe<In<f32>>, 4> edges, InOut<f32> u, Array<u32, 2> dims, Grid grid) { unpack(edges, u, dims); }
KERNEL unpack_edges_f64(Each<Maybe<In<f64>>, 4> edges, InOut<f64> u, Array<u32, 2> dims, Grid grid) { unpack(edges, u, dims); }
