//! The programs of Charm++'s `tests/charm++/megatest`, run as that one runs them: each alone, five of each at once, and all
//! of them at once.
//!
//! A node group of Charm++ has a member for each process. These programs are one process, so their node groups are groups on
//! one PE, and their rings are short. Sections are not there yet, and so neither are `groupsectiontest` and `multisectiontest`.

use chare::prelude::*;
use futures::future::{BoxFuture, try_join_all};

macro_rules! megatest {
    ($($subject:ident { $($program:ident)* })*) => {
        $( mod $subject; )*

        mod alone {
            use super::*;
            $($(
                #[chare::test(pes = [1, 2, 4, 8])]
                async fn $program(rt: Runtime) -> Result<()> {
                    super::$subject::$program::run(rt).await
                }
            )*)*
        }

        mod five_at_once {
            use super::*;
            $($(
                #[chare::test(pes = [1, 2, 4, 8])]
                async fn $program(rt: Runtime) -> Result<()> {
                    try_join_all((0..5).map(|_| super::$subject::$program::run(rt.clone()))).await?;
                    Ok(())
                }
            )*)*
        }

        fn all(rt: &Runtime) -> Vec<BoxFuture<'static, Result<()>>> {
            vec![$($( Box::pin($subject::$program::run(rt.clone())), )*)*]
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
    kinds { templates inherit }
    reductions { reduction statistics completion_test }
    inline { inlineem }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn all_at_once(rt: Runtime) -> Result<()> {
    try_join_all(all(&rt)).await?;
    Ok(())
}
