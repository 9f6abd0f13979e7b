//! A compiled program, and how it is run.

use std::ffi::c_int;

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::abi::{Block, Failure, Kind, failed};
use crate::command;
use crate::engine::{Flavour, Warm};
use crate::host::World;
use crate::http::{ENDING, Server};
use crate::spin::Spin;

pub struct Program {
    block: Block,
    code: Code,
}

enum Code {
    Module(Module),
    Command(Component),
    Server(Box<Server>),
    Spin(Box<Spin>),
}

impl Program {
    /// Map what was compiled on this node, which is trusted, and must not change while it is used.
    pub fn load(warm: &Warm, block: Block) -> Result<Self, Failure> {
        let broken = |error: wasmtime::Error| format!("the compiled module does not load: {error:#}");
        if block.contained && block.kind != Kind::Spin {
            warm.contained.enter();
        }
        let code = match block.kind {
            Kind::Module => {
                Code::Module(unsafe { Module::deserialize_file(&warm.commands, &block.artifact) }.map_err(broken)?)
            }
            Kind::Command2 => {
                Code::Command(unsafe { Component::deserialize_file(&warm.commands, &block.artifact) }.map_err(broken)?)
            }
            Kind::Command3 => {
                let engine = Engine::new(&Flavour::of(block.kind).config()).map_err(broken)?;
                Code::Command(unsafe { Component::deserialize_file(&engine, &block.artifact) }.map_err(broken)?)
            }
            Kind::Server2 | Kind::Server3 => {
                let settings = block.server.clone().ok_or("a server has settings")?;
                let server = Server::load(&block, World::new(&block)?, settings).map_err(broken)?;
                Code::Server(Box::new(server))
            }
            Kind::Spin => {
                let settings = block.server.clone().ok_or("a server has settings")?;
                Code::Spin(Box::new(Spin::load(&block.application, settings)?))
            }
        };
        Ok(Self { block, code })
    }

    /// The signals that it handles, as bits.
    pub fn signals(&self) -> c_int {
        match self.code {
            Code::Server(_) | Code::Spin(_) => ENDING.iter().map(|number| 1 << (number - 1)).sum(),
            _ => 0,
        }
    }

    pub fn run(self, warm: &Warm) -> c_int {
        let block = self.block;
        let result = match self.code {
            Code::Module(module) => command::run_module(warm, &block, &module),
            Code::Command(component) => command::run_component(warm, &block, &component),
            Code::Server(server) => Ok(server.run()),
            Code::Spin(spin) => {
                if block.contained {
                    warm.contained.enter();
                }
                spin.run()
            }
        };
        result.unwrap_or_else(|reason| failed(&reason))
    }
}
