//! Captures and graphs.

use super::{Out, driver};
use crate::code::Code;
use crate::engine::Work;
use crate::graph::has_same_shape;
use crate::world::{Executable, world};

/// `CUgraphExecUpdateResultInfo`: the result and two nodes.
#[repr(C)]
pub(crate) struct UpdateResult {
    result: i32,
    nodes: [u64; 2],
}

const UPDATE_SUCCEEDED: i32 = 0;
const TOPOLOGY_CHANGED: i32 = 2;

driver! {
    fn cuStreamBeginCapture_v2(stream: u64, mode: u32) {
        world().lock().begin_capture(stream, mode)
    }

    fn cuStreamEndCapture(stream: u64, graph: Out<u64>) {
        let mut state = world().lock();
        let nodes = state.end_capture(stream)?;
        let handle = state.new_handle();
        state.graphs.insert(handle, nodes);
        graph.put(handle)
    }

    fn cuGraphDestroy(graph: u64) {
        match world().lock().graphs.remove(&graph) {
            Some(_) => Ok(()),
            None => Err(world().misuse(Code::INVALID_HANDLE, "a graph destroyed that is not there")),
        }
    }

    fn cuGraphInstantiateWithFlags(executable: Out<u64>, graph: u64, flags: u64) {
        let mut state = world().lock();
        let device = state.current()?;
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let Some(nodes) = state.graphs.get(&graph).cloned() else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a graph that is not there"));
        };
        let handle = state.new_handle();
        state.executables.insert(handle, Executable { device, nodes });
        executable.put(handle)
    }

    fn cuGraphExecUpdate_v2(executable: u64, graph: u64, outcome: Out<UpdateResult>) {
        let mut state = world().lock();
        state.current()?;
        let (Some(nodes), Some(found)) = (state.graphs.get(&graph).cloned(), state.executables.get_mut(&executable))
        else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a graph that is not there"));
        };
        if !has_same_shape(&found.nodes, &nodes) {
            outcome.put(UpdateResult { result: TOPOLOGY_CHANGED, nodes: [0; 2] })?;
            return Err(Code::GRAPH_EXEC_UPDATE_FAILURE);
        }
        found.nodes = nodes;
        outcome.put(UpdateResult { result: UPDATE_SUCCEEDED, nodes: [0; 2] })
    }

    fn cuGraphLaunch(executable: u64, stream: u64) {
        let mut state = world().lock();
        let device = state.stream(stream)?.device;
        let Some(found) = state.executables.get(&executable) else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a launch of a graph that is not there"));
        };
        if found.device != device {
            return Err(world().misuse(Code::INVALID_HANDLE, "a launch of a graph of another device"));
        }
        let nodes = found.nodes.clone();
        state.check_not_capturing(stream, "a graph launched inside")?;
        state.submit(stream, Work::Graph(nodes))
    }

    fn cuGraphExecDestroy(executable: u64) {
        match world().lock().executables.remove(&executable) {
            Some(_) => Ok(()),
            None => Err(world().misuse(Code::INVALID_HANDLE, "a graph destroyed that is not there")),
        }
    }
}
