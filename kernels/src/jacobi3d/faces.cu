// Packing and unpacking faces: see faces.rs, which says how faces are numbered and how their cells stand in dense arrays.

typedef u32 Face;

__device__ u32 along(Array<u32, 3> dims, u32 axis) {
    return axis == 0 ? dims[0] : axis == 1 ? dims[1] : dims[2];
}

// The extents of a face: its axes are those that it is not normal to.
__device__ u32 slow_len(Array<u32, 3> dims, Face face) { return along(dims, face < 2 ? 1 : 0); }
__device__ u32 fast_len(Array<u32, 3> dims, Face face) { return along(dims, face < 4 ? 2 : 1); }

// Where cell `cell` of a face stands in the padded array: among the block's own cells, or the ghosts beyond.
__device__ u64 place(Array<u32, 3> dims, Face face, bool ghost, u64 cell) {
    u64 step_y = dims[2] + 2;
    u64 step_x = (dims[1] + 2) * step_y;
    u32 axis = face / 2;
    u64 depth = face % 2 ? along(dims, axis) + (ghost ? 1 : 0) : (ghost ? 0 : 1);
    u64 slow = cell / fast_len(dims, face) + 1;
    u64 fast = cell % fast_len(dims, face) + 1;
    if (axis == 0) return depth * step_x + slow * step_y + fast;
    if (axis == 1) return slow * step_x + depth * step_y + fast;
    return slow * step_x + fast * step_y + depth;
}

// The number of this thread, and of all.
__device__ u64 first() {
    u64 x = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    u64 y = u64(blockIdx.y) * blockDim.y + threadIdx.y;
    u64 z = u64(blockIdx.z) * blockDim.z + threadIdx.z;
    return (z * gridDim.y * blockDim.y + y) * gridDim.x * blockDim.x + x;
}
__device__ u64 stride() {
    return u64(gridDim.x) * blockDim.x * gridDim.y * blockDim.y * gridDim.z * blockDim.z;
}

template <class T>
__device__ void pack(In<T> u, Out<T> cells, Array<u32, 3> dims, Face face) {
    for (u64 cell = first(); cell < cells.len; cell += stride()) {
        cells[cell] = u[place(dims, face, false, cell)];
    }
}

template <class T>
__device__ void unpack(In<T> cells, InOut<T> u, Array<u32, 3> dims, Face face) {
    for (u64 cell = first(); cell < cells.len; cell += stride()) {
        u[place(dims, face, true, cell)] = cells[cell];
    }
}

// The threads go over the cells of all faces, one face after the other.
template <class T>
__device__ void pack_all(In<T> u, Each<Maybe<Out<T>>, 6> faces, Array<u32, 3> dims) {
    u64 before = 0;
#pragma unroll
    for (Face face = 0; face < 6; ++face) {
        u64 len = u64(slow_len(dims, face)) * fast_len(dims, face);
        if (faces[face]) {
            u64 skipped = (before + stride() - 1 - first()) / stride();
            for (u64 cell = first() + skipped * stride() - before; cell < len; cell += stride()) {
                faces[face][cell] = u[place(dims, face, false, cell)];
            }
        }
        before += len;
    }
}

template <class T>
__device__ void unpack_all(Each<Maybe<In<T>>, 6> faces, InOut<T> u, Array<u32, 3> dims) {
    u64 before = 0;
#pragma unroll
    for (Face face = 0; face < 6; ++face) {
        u64 len = u64(slow_len(dims, face)) * fast_len(dims, face);
        if (faces[face]) {
            u64 skipped = (before + stride() - 1 - first()) / stride();
            for (u64 cell = first() + skipped * stride() - before; cell < len; cell += stride()) {
                u[place(dims, face, true, cell)] = faces[face][cell];
            }
        }
        before += len;
    }
}

KERNEL pack_face_f32(In<f32> u, Out<f32> cells, Array<u32, 3> dims, Face face, Grid grid) {
    pack(u, cells, dims, face);
}
KERNEL pack_face_f64(In<f64> u, Out<f64> cells, Array<u32, 3> dims, Face face, Grid grid) {
    pack(u, cells, dims, face);
}

KERNEL unpack_face_f32(In<f32> cells, InOut<f32> u, Array<u32, 3> dims, Face face, Grid grid) {
    unpack(cells, u, dims, face);
}
KERNEL unpack_face_f64(In<f64> cells, InOut<f64> u, Array<u32, 3> dims, Face face, Grid grid) {
    unpack(cells, u, dims, face);
}

KERNEL pack_faces_f32(In<f32> u, Each<Maybe<Out<f32>>, 6> faces, Array<u32, 3> dims, Grid grid) {
    pack_all(u, faces, dims);
}
KERNEL pack_faces_f64(In<f64> u, Each<Maybe<Out<f64>>, 6> faces, Array<u32, 3> dims, Grid grid) {
    pack_all(u, faces, dims);
}

KERNEL unpack_faces_f32(Each<Maybe<In<f32>>, 6> faces, InOut<f32> u, Array<u32, 3> dims, Grid grid) {
    unpack_all(faces, u, dims);
}
KERNEL unpack_faces_f64(Each<Maybe<In<f64>>, 6> faces, InOut<f64> u, Array<u32, 3> dims, Grid grid) {
    unpack_all(faces, u, dims);
}
