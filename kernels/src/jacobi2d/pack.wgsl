// Packing edges in one launch: see edges.rs. An invocation a cell; an edge that is absent is skipped.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec2<u32>,
}

@group(0) @binding(0) var<storage, read> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> x_low: array<f32>;
@group(0) @binding(2) var<storage, read_write> x_high: array<f32>;
@group(0) @binding(3) var<storage, read_write> y_low: array<f32>;
@group(0) @binding(4) var<storage, read_write> y_high: array<f32>;
@group(0) @binding(5) var<uniform> arguments: Arguments;

// Where cell `cell` of an edge stands in the padded array: among the block's own cells.
fn place(edge: u32, cell: u32) -> u32 {
    let dims = arguments.dims;
    let row = dims.y + 2u;
    let depth = select(1u, select(dims.y, dims.x, edge < 2u), edge % 2u == 1u);
    if edge < 2u {
        return depth * row + cell + 1u;
    }
    return (cell + 1u) * row + depth;
}

@compute @workgroup_size(256)
fn pack_edges_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    var cell = id.x;
    var edge = 0u;
    while edge < 4u {
        let len = select(arguments.dims.x, arguments.dims.y, edge < 2u);
        if cell < len {
            break;
        }
        cell -= len;
        edge += 1u;
    }
    if edge == 4u || (arguments.present >> (edge + 1u) & 1u) == 0u {
        return;
    }
    let at = place(edge, cell);
    switch edge {
        case 0u: { x_low[cell] = u[at]; }
        case 1u: { x_high[cell] = u[at]; }
        case 2u: { y_low[cell] = u[at]; }
        default: { y_high[cell] = u[at]; }
    }
}
