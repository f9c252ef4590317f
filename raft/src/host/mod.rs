//! What a replica stands on: its runtime, its threads, its clocks and chance.
//!
//! In the product these are tokio and the operating system; in the simulation ([decision 22](../../../docs/decisions))
//! they are modelled, and everything else of this crate is the same code. Knows nothing of agreement.

/// Whether a bug of the museum is planted. Never in the product, where this is `false` before anything is compiled.
macro_rules! exhibit {
    ($which:ident) => {{
        #[cfg(simulated)]
        {
            $crate::host::modelled::Exhibit::$which.is_shown()
        }
        #[cfg(not(simulated))]
        {
            false
        }
    }};
}
pub(crate) use exhibit;

#[cfg(simulated)]
pub(crate) mod modelled;
#[cfg(not(simulated))]
mod real;
#[cfg(not(simulated))]
mod threads;

#[cfg(simulated)]
pub(crate) use modelled::{Handle, JoinHandle, Runtime, Threads, random_u64, wall_ms, watch, yield_now};
#[cfg(not(simulated))]
pub(crate) use real::{Handle, JoinHandle, Runtime, random_u64, wall_ms, watch, yield_now};
#[cfg(not(simulated))]
pub(crate) use threads::Threads;
