//! Carries out one operation on memory of the host.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::arguments::{Arguments, Reader};
use crate::backend::Block;
use crate::caught::catch;
use crate::fault::FaultRecord;
use crate::graph::{LaunchStep, Plan, Step};
use crate::operation::{Command, HostRange, Operation};

/// Does what the operation is for, on memory that `address` finds; the arguments of a kernel name it by addresses already.
/// Does not panic: a kernel's panic is the fault
/// returned.
pub(super) fn run(
    operation: &Operation,
    address: impl Fn(Block) -> NonNull<u8>,
) -> Result<(), Arc<FaultRecord>> {
    operation.enter()?;
    for (from, to, bytes) in operation.snapshot_copies() {
        // SAFETY: both have this many bytes. `to` is new and used by this operation only; `from` is shared, so nobody writes
        // it.
        unsafe { address(to).copy_from_nonoverlapping(address(from), bytes) };
    }
    let memory = |index: usize| {
        let memory = &operation.accesses[index].memory;
        (address(memory.block()), memory.len_bytes())
    };
    match &operation.command {
        Command::Launch { code, launch } => {
            // SAFETY: these are the arguments of this kernel. The operation keeps the memory alive, and it has been put in the
            // order that its accesses ask for: nobody else writes any of it meanwhile, nor reads what it writes.
            let outcome = catch(|| unsafe { (code.run)(launch, &mut Reader::new(&operation.arguments)) });
            return outcome.map_err(|caught| operation.record_fault(caught));
        }
        Command::Graph(plan) => return run_graph(operation, plan, &memory),
        Command::Copy => {
            let ((from, bytes), (to, _)) = (memory(0), memory(1));
            // SAFETY: two allocations of `bytes` bytes, ordered and kept alive as accesses of the operation.
            unsafe { to.copy_from_nonoverlapping(from, bytes) };
        }
        Command::Zero => {
            let (to, bytes) = memory(0);
            // SAFETY: the memory has this many bytes, and is ordered and kept alive as an access of the operation.
            unsafe { to.write_bytes(0, bytes) };
        }
        Command::Upload(HostRange { address: from, bytes, at_bytes }) => {
            // SAFETY: both have this many bytes, one of them from a place on; that one is an access of the operation, the other is valid until
            // its end.
            unsafe { memory(0).0.add(*at_bytes).copy_from_nonoverlapping(*from, *bytes) };
        }
        Command::Download(HostRange { address: to, bytes, at_bytes }) => {
            // SAFETY: as above.
            unsafe { to.copy_from_nonoverlapping(memory(0).0.add(*at_bytes), *bytes) };
        }
        Command::Code { name, .. } => unreachable!("`{name}` is for CUDA"),
        Command::Fence => {}
    }
    Ok(())
}

/// Does the steps of a graph one after the other, up to one that fails. `memory` finds the buffers of the operation.
fn run_graph(
    operation: &Operation,
    plan: &Plan,
    memory: &dyn Fn(usize) -> (NonNull<u8>, usize),
) -> Result<(), Arc<FaultRecord>> {
    let spare = || plan.spare.lock().expect("nothing panics under this lock");
    // Not under the lock: a replay on another device is not to wait for kernels that never end.
    let mut filled = std::mem::take(&mut *spare());
    let outcome = plan.steps.iter().try_for_each(|step| run_step(operation, step, memory, &mut filled));
    *spare() = filled;
    outcome
}

/// Does one step, whose arguments go to `filled`.
fn run_step(
    operation: &Operation,
    step: &Step,
    memory: &dyn Fn(usize) -> (NonNull<u8>, usize),
    filled: &mut Arguments,
) -> Result<(), Arc<FaultRecord>> {
    match step {
        Step::Launch(LaunchStep { code, launch, arguments }) => {
            arguments.fill(&operation.arguments, filled);
            // SAFETY: these are the arguments of this kernel, whose buffers are the operation's, as for a launch; steps are
            // done one at a time, and a step that writes a buffer names it once.
            let outcome = catch(|| unsafe { (code.run)(launch, &mut Reader::new(filled)) });
            outcome.map_err(|caught| operation.record_fault_of(code.name, caught))?;
        }
        Step::Copy { from, to } => {
            let ((from, bytes), (to, _)) = (memory(*from), memory(*to));
            // SAFETY: two allocations of `bytes` bytes, as the replay has checked, ordered and kept alive as accesses of
            // the operation.
            unsafe { to.copy_from_nonoverlapping(from, bytes) };
        }
        Step::Zero(index) => {
            let (to, bytes) = memory(*index);
            // SAFETY: the memory has this many bytes, and is ordered and kept alive as an access of the operation.
            unsafe { to.write_bytes(0, bytes) };
        }
    }
    Ok(())
}
