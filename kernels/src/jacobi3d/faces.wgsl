// Packing and unpacking one face: see faces.rs, which says how faces are numbered and how their cells stand in dense arrays.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec3<u32>,
    @align(16) face: u32,
}

@group(0) @binding(0) var<storage, read> from_array: array<f32>;
@group(0) @binding(1) var<storage, read_write> to_array: array<f32>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

// Where the cell (slow, fast) of the face stands in the padded array: among the block's own cells, or the ghosts beyond.
fn place(ghost: bool, slow: u32, fast: u32) -> u32 {
    let dims = arguments.dims;
    let step_y = dims.z + 2u;
    let step_x = (dims.y + 2u) * step_y;
    let axis = arguments.face / 2u;
    var depth = select(1u, 0u, ghost);
    if arguments.face % 2u == 1u {
        depth = dims[axis] + select(0u, 1u, ghost);
    }
    switch axis {
        case 0u: { return depth * step_x + (slow + 1u) * step_y + fast + 1u; }
        case 1u: { return (slow + 1u) * step_x + depth * step_y + fast + 1u; }
        default: { return (slow + 1u) * step_x + (fast + 1u) * step_y + depth; }
    }
}

@compute @workgroup_size(32, 8)
fn pack_face_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arguments.grid.x && id.y < arguments.grid.y {
        to_array[id.y * arguments.grid.x + id.x] = from_array[place(false, id.y, id.x)];
    }
}

@compute @workgroup_size(32, 8)
fn unpack_face_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arguments.grid.x && id.y < arguments.grid.y {
        to_array[place(true, id.y, id.x)] = from_array[id.y * arguments.grid.x + id.x];
    }
}
