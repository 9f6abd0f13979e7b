//! Writes what makes a component of a core module: WASI preview 1 in terms of 0.2, for commands and for servers.
use wasi_preview1_component_adapter_provider as provider;

fn main() -> std::io::Result<()> {
    std::fs::write("command.wasm", provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?;
    std::fs::write("reactor.wasm", provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)
}
