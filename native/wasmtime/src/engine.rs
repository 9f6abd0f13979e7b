//! The engines, and what is made of them before it is known what will run.

use wasmtime::component;
use wasmtime::{Config, Enabled, Engine, Linker, PoolingAllocationConfig};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{I32Exit, p2, p3};

use crate::abi::Kind;
use crate::contained::Contained;
use crate::extras;
use crate::host::Host;

/// What an engine is for; a compiled form runs on one that is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// For servers, whose requests have an end; it costs some speed.
    pub interruptible: bool,
    /// For WASI 0.3, too, whose streams and futures all others would pay for.
    pub newer: bool,
}

impl Flavour {
    pub const COMMANDS: Self = Self { interruptible: false, newer: false };

    pub fn of(kind: Kind) -> Self {
        Self {
            interruptible: matches!(kind, Kind::Server2 | Kind::Server3),
            newer: matches!(kind, Kind::Command3 | Kind::Server3),
        }
    }

    /// What compiled forms depend on. ``wasmtime_native.py`` has a number for it.
    pub fn config(self) -> Config {
        let mut config = Config::new();
        config.parallel_compilation(false); // its threads would not survive a fork
        config.epoch_interruption(self.interruptible);
        config.concurrency_support(self.newer);
        config
    }

    /// WASI 0.2, and 0.3, and what is beside them.
    pub fn linker(self, engine: &Engine) -> wasmtime::Result<component::Linker<Host>> {
        let mut linker = self.worlds(engine)?;
        extras::add_to_linker(&mut linker, self.newer)?;
        Ok(linker)
    }

    /// WASI 0.2, and 0.3.
    pub fn worlds(self, engine: &Engine) -> wasmtime::Result<component::Linker<Host>> {
        let mut linker = component::Linker::new(engine);
        p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        if self.newer {
            p3::add_to_linker(&mut linker)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        }
        Ok(linker)
    }
}

/// All that can be made before the first fork: what most programs need.
pub struct Warm {
    pub commands: Engine,
    pub modules: Linker<WasiP1Ctx>,
    pub components: component::Linker<Host>,
    pub contained: Contained,
}

impl Warm {
    pub fn new(contained: &str) -> Result<Self, String> {
        let make = || {
            let commands = Engine::new(&Flavour::COMMANDS.config())?;
            Ok::<_, wasmtime::Error>((modules(&commands)?, Flavour::COMMANDS.linker(&commands)?, commands))
        };
        let (modules, components, commands) = make().map_err(|error| format!("{error:#}"))?;
        Ok(Self { commands, modules, components, contained: Contained::of(contained)? })
    }
}

/// An engine whose instances are placed in memory that is reserved ahead, as many at a time as there are requests, and a
/// second generation that ends meanwhile.
///
/// :raises: there is not so much address space, or the processor lacks something
pub fn pooling(flavour: Flavour, concurrency: usize) -> wasmtime::Result<Engine> {
    let most = u32::try_from(concurrency * 2 + 16).unwrap_or(u32::MAX);
    let resident = if PoolingAllocationConfig::is_pagemap_scan_available() { RESIDENT_IF_TOLD } else { RESIDENT };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(most)
        .total_core_instances(u32::MAX)
        .total_memories(most.saturating_mul(MEMORIES))
        .total_tables(most.saturating_mul(TABLES))
        .total_stacks(most.saturating_mul(2))
        .total_gc_heaps(most)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(WARM)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(resident)
        .table_keep_resident(RESIDENT);
    Engine::new(flavour.config().allocation_strategy(pool))
}

/// Of a component, as far as it is placed in a pool.
const MEMORIES: u32 = 2;
const TABLES: u32 = 8;
const TABLE_ELEMENTS: usize = 20_000;
/// Places that are kept for the next instance, and how much of each stays in memory: all of it is written anew, or, where
/// the kernel tells (PAGEMAP_SCAN, Linux 6.7), what a guest has written.
const WARM: u32 = 8;
const RESIDENT: usize = 64 * 1024;
const RESIDENT_IF_TOLD: usize = 1024 * 1024;

/// WASI preview 1, with exit codes up to 255.
pub fn modules(engine: &Engine) -> wasmtime::Result<Linker<WasiP1Ctx>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |context| context)?;
    exits(&mut linker)?;
    Ok(linker)
}

pub const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Exit codes of WASI preview 1 up to 255, which the crate refuses from 126 on.
pub fn exits<T: 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap(PREVIEW1, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) })?;
    linker.allow_shadowing(false);
    Ok(())
}
