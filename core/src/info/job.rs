//! What a run of several processes would have: each tells the first one, which puts it together.

use chare_transport::{Driver, Frame, Progress, Rank};

use super::Info;
use crate::job::leave;
use crate::job::paths::Paths;
use crate::launch;
use crate::options::Options;
use crate::runtime::StartError;

/// What all processes of the job have, at rank 0; empty elsewhere. Waits for all.
pub(super) fn text(options: &Options) -> Result<String, StartError> {
    let (_environment, options, mut process) = launch::meet(options.clone())?;
    let facts = process.outbox.facts().clone();
    let (rank, pes) = (facts.rank(), options.pes());
    let looked = Info::with_devices(&options);
    let devices = looked.as_ref().ok().map(|(_, devices)| devices);
    let to_processes = match Paths::find(&process.outbox, &mut process.driver, devices, &options) {
        Ok(paths) => paths.lines(rank),
        Err(error) => {
            leave(process.driver);
            return Err(error);
        }
    };
    let own = looked.map(|(info, _)| Info { first: rank.index() * pes, to_processes, ..info }.to_string());
    let told = own.as_ref().map_or_else(|error| format!("error: {error}"), Clone::clone);
    // It is sent, or the driver fails, which is told by it.
    let _ = process.outbox.send(Rank(0), Frame::new(told.as_bytes()));
    let mut parts = gather(process.driver)?;
    own?;
    if rank != Rank(0) {
        return Ok(String::new());
    }
    parts.sort_by_key(|(rank, _)| *rank);
    let (size, hosts) = (facts.size(), facts.hosts().len());
    let mut text = format!("job: {size} processes on {hosts} hosts, {} PEs\n", size * pes);
    for (rank, part) in parts {
        let host = facts.host_of(rank).map_or("an unknown host", |host| &host.name);
        text += &format!("{rank} on {host}\n");
        part.lines().for_each(|line| text += &format!("  {line}\n"));
    }
    text += "between processes: messages by MPI; device memory as each says above, and staged what is for all PEs";
    Ok(text)
}

/// What has come when all have told.
fn gather(mut driver: Driver) -> Result<Vec<(Rank, String)>, StartError> {
    let mut parts = Vec::new();
    driver.close();
    loop {
        let polled = driver.poll(&mut |from, frame| {
            parts.push((from, String::from_utf8_lossy(frame.header).into_owned()));
        });
        match polled {
            Ok(Progress::Closed) => return Ok(parts),
            Ok(Progress::Busy) => {}
            Ok(Progress::Idle) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
}
