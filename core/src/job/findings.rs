//! What the processes of a job that hangs tell each other, before each writes its part of the report.
//!
//! All tell rank 0, which puts it together and tells all; twice: first whom each is about to name and how far its reductions have come, then what each
//! knows of those whom anybody names. A process that has come to its end for another reason, or is lost, takes no part: the others
//! give up after [`WITHIN`], and write what they know. So nobody waits for long, and a report that is not complete says so.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use chare_transport::{Driver, Progress, Rank};

use super::Job;
use super::note::{Note, Round};
use crate::hang::{Findings, HangReport};
use crate::process::{Shared, lock};

/// How long to wait for the findings of all.
const WITHIN: Duration = Duration::from_secs(2);

impl Job {
    /// Tells the other processes what is known here, and learns what they know. Blocks, for a time.
    pub(crate) fn exchange_findings(&self, shared: &Shared, report: &HangReport) {
        let mut place = self.lock_driver();
        let Some(driver) = place.as_mut() else { return };
        let exchange = Exchange { job: self, shared, by: Instant::now() + WITHIN };
        let own = || report.questions();
        if !exchange.meet(
            driver,
            Round::Questions,
            own,
            |of| report.add_questions(of),
            |all| report.set_questions(all),
        ) {
            return;
        }
        report.counts_all();
        let (own, add) = (|| report.answers(), |of| report.add_answers(of));
        if exchange.meet(driver, Round::Answers, own, add, add) {
            report.knows_all();
        }
    }
}

struct Exchange<'a> {
    job: &'a Job,
    shared: &'a Shared,
    by: Instant,
}

impl Exchange<'_> {
    /// One round, in which all learn the same; false if somebody is late.
    fn meet(
        &self,
        driver: &mut Driver,
        round: Round,
        own: impl Fn() -> Findings,
        add: impl Fn(Findings),
        set: impl Fn(Findings),
    ) -> bool {
        let job = self.job;
        if job.rank() != Rank(0) {
            job.tell(Rank(0), &Note::Findings(round, own()));
            return self.poll_until(driver, || self.take(Rank(0), round).map(&set).is_some());
        }
        let come = RefCell::new(Vec::new());
        let takes = |rank| self.take(rank, round).map(|findings| come.borrow_mut().push(findings)).is_some();
        if !job.others().all(|rank| self.poll_until(driver, || takes(rank))) {
            return false;
        }
        come.into_inner().into_iter().for_each(add);
        job.tell_others(&Note::Findings(round, own()));
        // The others wait for it, and this process may have much to do before it polls again.
        let is_gone = || job.others().all(|rank| job.outbox.queued_bytes(rank) == 0);
        self.poll_until(driver, is_gone);
        true
    }

    /// What this process has told of the round, if that has come.
    fn take(&self, from: Rank, round: Round) -> Option<Findings> {
        lock(&self.job.reports).findings.remove(&(from, round))
    }

    /// Polls until that is so; false if it is not in time.
    fn poll_until(&self, driver: &mut Driver, is_so: impl Fn() -> bool) -> bool {
        while !is_so() {
            let polled = driver.poll(&mut |from, frame| {
                if let Some(note) = Note::read(frame.header) {
                    self.job.heed_at_end(self.shared, from, note);
                }
            });
            match polled {
                Ok(Progress::Idle) => thread::yield_now(),
                Ok(Progress::Busy) => {}
                Ok(Progress::Closed) | Err(_) => return false,
            }
            if Instant::now() > self.by {
                return false;
            }
        }
        true
    }
}
