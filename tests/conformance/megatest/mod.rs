//! The programs of Charm++'s `tests/charm++/megatest`, run as that one runs them: each alone, five of each at once, and all
//! of them at once.
//!
//! A node group of Charm++ has a member for each process. These programs are one process, so their node groups are groups on
//! one PE, and their rings are short. Sections are not there yet, and so neither are `groupsectiontest` and `multisectiontest`.

use chare::prelude::*;
use futures::future::{BoxFuture, try_join_all};

macro_rules! megatest {
    ($($subject:ident { $($program:ident $((one_process = $why:literal))?)* })*) => {
        $( mod $subject; )*

        mod alone {
            use super::*;
            $($(
                #[chare::test(pes = [1, 2, 4, 8] $(, one_process = $why)?)]
                async fn $program(rt: Runtime) -> Result<()> {
                    super::$subject::$program::run(rt).await
                }
            )*)*
        }

        mod five_at_once {
            use super::*;
            $($(
                #[chare::test(pes = [1, 2, 4, 8] $(, one_process = $why)?)]
                async fn $program(rt: Runtime) -> Result<()> {
                    try_join_all((0..5).map(|_| super::$subject::$program::run(rt.clone()))).await?;
                    Ok(())
                }
            )*)*
        }

        /// All that can run where this runs.
        fn all(rt: &Runtime) -> Vec<BoxFuture<'static, Result<()>>> {
            let mut all: Vec<BoxFuture<'static, Result<()>>> = Vec::new();
            $($(
                let stays: &[&str] = &[$($why)?];
                if stays.is_empty() || rt.num_processes() == 1 {
                    all.push(Box::pin($subject::$program::run(rt.clone())));
                }
            )*)*
            all
        }
    };
}

megatest! {
    rings {
        groupring nodering arrayring packtest immediatering migration
    }
    casts { groupcast nodecast groupmulti listsend synctest }
    dependence { groupdependence }
    arguments { varsizetest marshall rotest }
    callbacks { callback }
    priorities { priotest priolongtest priomsg bitvector }
    search { fib queens }
    kinds { templates (one_process = "serde does not know arrays of any length") inherit }
    reductions { reduction statistics completion_test }
    inline { inlineem }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn all_at_once(rt: Runtime) -> Result<()> {
    try_join_all(all(&rt)).await?;
    Ok(())
}
