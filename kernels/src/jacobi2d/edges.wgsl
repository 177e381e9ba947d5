// What packing and unpacking edges have in common: see edges.rs. It stands behind the text of either, which has the arguments' binding.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec2<u32>,
}

// A cell of an edge, by its number there. There are four edges.
struct Cell {
    edge: u32,
    number: u32,
}

// The cell of an invocation: those of all edges, one after the other.
fn cell_of(invocation: u32) -> Cell {
    var cell = Cell(0u, invocation);
    while cell.edge < 4u {
        let len = select(arguments.dims.x, arguments.dims.y, cell.edge < 2u);
        if cell.number < len {
            break;
        }
        cell.number -= len;
        cell.edge += 1u;
    }
    return cell;
}

// Where it stands in the padded array: among the block's own cells, or one further out, among the ghosts.
fn place(cell: Cell, ghost: u32) -> u32 {
    let dims = arguments.dims;
    let row = dims.y + 2u;
    let far = select(dims.y, dims.x, cell.edge < 2u) + ghost;
    let depth = select(1u - ghost, far, cell.edge % 2u == 1u);
    if cell.edge < 2u {
        return depth * row + cell.number + 1u;
    }
    return (cell.number + 1u) * row + depth;
}
