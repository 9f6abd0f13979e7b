//! Language models: none is here. An application whose operator names a server of them is the portable host's; others are
//! told what they would be there (``shimd/apps/spin/llm.py``).

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Val};

use super::given;
use crate::host::Host;

const NAME: &str = "fermyon:spin/llm@2.0.0";

pub fn link(linker: &mut Linker<Host>, component: &Component) -> wasmtime::Result<()> {
    let (engine, of) = (component.engine(), component.component_type());
    let Some(imported) = of.get_import(engine, NAME) else { return Ok(()) };
    let ComponentItem::ComponentInstance(of) = imported.ty else { return Ok(()) };
    let mut interface = linker.instance(NAME)?;
    for (name, item) in of.exports(engine) {
        if let ComponentItem::ComponentFunc(_) = item.ty {
            interface.func_new(name, |store, _, parameters, results| {
                let [Val::String(model), ..] = parameters else {
                    return Err(wasmtime::Error::msg("it names no model"));
                };
                let granted = given(store.data())?.models.contains(model);
                results[0] = Val::Result(Err(Some(Box::new(refusal(model, granted)))));
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn refusal(model: &str, granted: bool) -> Val {
    let (case, reason) = if granted {
        ("runtime-error", "no model is there: runtime-config.toml has no llm_compute".to_string())
    } else {
        ("invalid-input", format!("the component may not use '{model}': its ai_models does not name it"))
    };
    Val::Variant(case.into(), Some(Box::new(Val::String(reason))))
}
