//! What the processes of a job that hangs tell each other, before each writes its part of the report.
//!
//! All tell rank 0, which puts it together and tells all; twice: first whom each is about to name and how far its reductions have come, then what each
//! knows of those whom anybody names. A process that has come to its end for another reason, or is lost, takes no part: the others
//! give up after [`WITHIN`], and write what they know. So nobody waits for long, and a report that is not complete says so.

use std::thread;
use std::time::{Duration, Instant};

use chare_transport::{Driver, Rank};

use super::Job;
use super::note::Note;
use crate::hang::{Findings, HangReport};
use crate::process::{Shared, lock};

/// How long to wait for the findings of all.
const WITHIN: Duration = Duration::from_secs(2);

const QUESTIONS: u8 = 0;
const ANSWERS: u8 = 1;

impl Job {
    /// Tells the other processes what is known here, and learns what they know. Blocks, for a time.
    pub(crate) fn exchange_findings(&self, shared: &Shared, report: &HangReport) {
        let mut place = self.lock_driver();
        let Some(driver) = place.as_mut() else { return };
        let by = Instant::now() + WITHIN;
        let mut meet = |round, own: fn(&HangReport) -> Findings, add: fn(&HangReport, Findings)| {
            if self.rank() != Rank(0) {
                self.tell(Rank(0), &Note::Findings(round, own(report)));
                return self.await_findings(shared, driver, (round, 1), by);
            }
            let of_others = self.await_findings(shared, driver, (round, self.facts().size() - 1), by)?;
            of_others.into_iter().for_each(|findings| add(report, findings));
            self.others().for_each(|rank| self.tell(rank, &Note::Findings(round, own(report))));
            Some(Vec::new())
        };
        let Some(questions) = meet(QUESTIONS, HangReport::questions, HangReport::add_questions) else {
            return;
        };
        questions.into_iter().for_each(|of_all| report.set_questions(of_all));
        let Some(answers) = meet(ANSWERS, HangReport::answers, HangReport::add_answers) else { return };
        answers.into_iter().for_each(|of_all| report.add_answers(of_all));
        report.knows_all();
    }

    /// The findings of a round, when so many have come; none if they do not in time.
    fn await_findings(
        &self,
        shared: &Shared,
        driver: &mut Driver,
        (round, count): (u8, usize),
        by: Instant,
    ) -> Option<Vec<Findings>> {
        let mut come = Vec::new();
        while come.len() < count {
            let polled = driver.poll(&mut |from, frame| {
                if let Some(note) = Note::read(frame.header) {
                    self.heed_at_end(shared, from, note);
                }
            });
            if polled.is_err() || Instant::now() > by {
                return None;
            }
            let of_round =
                lock(&self.reports).findings.extract_if(.., |(of, _)| *of == round).collect::<Vec<_>>();
            come.extend(of_round.into_iter().map(|(_, findings)| findings));
            thread::yield_now();
        }
        Some(come)
    }
}
