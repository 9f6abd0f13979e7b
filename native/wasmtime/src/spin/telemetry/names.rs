//! The names of what components call, in spans: Spin's, by which dashboards know them. ``shimd/apps/spin/telemetry/names.py``
//! has the same.

use opentelemetry::KeyValue;
use wasmtime::component::Val;

/// By interface: what the names of its functions are put behind, and the kind of a database.
const INTERFACES: [(&str, &str, &str); 18] = [
    ("fermyon:spin/key-value", "spin_key_value", ""),
    ("spin:key-value/key-value", "spin_key_value", ""),
    ("wasi:keyvalue/store", "wasi_key_value", ""),
    ("wasi:keyvalue/atomics", "spin_key_value", ""),
    ("wasi:keyvalue/batch", "spin_key_value", ""),
    ("fermyon:spin/sqlite", "spin_sqlite", "sqlite"),
    ("spin:sqlite/sqlite", "spin_sqlite", "sqlite"),
    ("fermyon:spin/variables", "spin_variables", ""),
    ("spin:variables/variables", "spin_variables", ""),
    ("wasi:config/store", "wasi_config", ""),
    ("fermyon:spin/redis", "spin_outbound_redis", "redis"),
    ("spin:redis/redis", "spin_outbound_redis", "redis"),
    ("fermyon:spin/mqtt", "spin_outbound_mqtt", ""),
    ("spin:mqtt/mqtt", "spin_outbound_mqtt", ""),
    ("fermyon:spin/mysql", "spin_outbound_mysql", "mysql"),
    ("spin:mysql/mysql", "spin_outbound_mysql", "mysql"),
    ("fermyon:spin/postgres", "spin_outbound_pg", "postgresql"),
    ("spin:postgres/postgres", "spin_outbound_pg", "postgresql"),
];
/// Names of their own.
const OWN: [(&str, &str); 10] = [
    ("spin_outbound_redis.open", "spin_outbound_redis.open_connection"),
    ("spin_outbound_redis.publish", "PUBLISH"),
    ("spin_outbound_redis.get", "GET"),
    ("spin_outbound_redis.set", "SET"),
    ("spin_outbound_redis.incr", "INCRBY"),
    ("spin_outbound_redis.del", "DEL"),
    ("spin_outbound_redis.sadd", "SADD"),
    ("spin_outbound_redis.smembers", "SMEMBERS"),
    ("spin_outbound_redis.srem", "SREM"),
    ("spin_outbound_mqtt.open", "spin_outbound_mqtt.open_connection"),
];

/// A function as spans name it.
#[derive(Clone)]
pub struct Called {
    plain: String,
    database: &'static str,
    connects: bool,
    /// Somebody else will be given what it sends.
    pub produces: bool,
    executes: bool,
}

impl Called {
    /// ``None``: calls of it are not told.
    ///
    /// :param function: as the interface has it: ``get``, ``[method]store.get``
    pub fn of(interface: &str, function: &str) -> Option<Self> {
        let interface = interface.split_once('@').map_or(interface, |(plain, _)| plain);
        let (_, prefix, database) = INTERFACES.iter().find(|(name, ..)| *name == interface)?;
        if function.starts_with("[constructor") {
            return None;
        }
        let function = function.rsplit_once('.').map_or(function, |(_, plain)| plain);
        // Where both are, the one that is asynchronous does the same.
        let function = function.strip_suffix("-async").unwrap_or(function).replace('-', "_");
        Some(Self {
            connects: prefix.starts_with("spin_outbound_") && function == "open",
            produces: *prefix == "spin_outbound_mqtt" && function == "publish",
            executes: *prefix == "spin_outbound_redis" && function == "execute",
            plain: format!("{prefix}.{function}"),
            database,
        })
    }

    /// :param parameters: of the call, where they are known; a resource's method has that as the first
    pub fn name(&self, parameters: &[Val]) -> String {
        if let (true, Some(Val::String(command))) = (self.executes, parameters.get(1)) {
            return command.clone();
        }
        let own = OWN.iter().find(|(plain, _)| *plain == self.plain);
        own.map_or_else(|| self.plain.clone(), |(_, name)| name.to_string())
    }

    pub fn attributes(&self, parameters: &[Val]) -> Vec<KeyValue> {
        let mut found = Vec::new();
        if !self.database.is_empty() {
            found.push(KeyValue::new("db.system.name", self.database));
        }
        if let (true, Some(Val::String(address))) = (self.connects, parameters.first()) {
            found.extend(server(address));
        }
        if let (true, Some(Val::String(topic))) = (self.produces, parameters.get(1)) {
            found.push(KeyValue::new("messaging.destination.name", topic.clone()));
        }
        found
    }
}

/// The host and the port of a URL, and none of its secrets.
fn server(address: &str) -> Vec<KeyValue> {
    let rest = address.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (place, ""),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = Vec::new();
    if !host.is_empty() {
        found.push(KeyValue::new("server.address", host.to_string()));
    }
    if let Ok(port) = port.parse::<u16>() {
        found.push(KeyValue::new("server.port", i64::from(port)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_spins_names() {
        let name = |interface, function| Called::of(interface, function).map(|it| it.name(&[]));
        assert_eq!(name("fermyon:spin/key-value@2.0.0", "[static]store.open").unwrap(), "spin_key_value.open");
        assert_eq!(
            name("spin:sqlite/sqlite@3.1.0", "[method]connection.execute-async").unwrap(),
            "spin_sqlite.execute"
        );
        assert_eq!(
            name("wasi:keyvalue/store@0.2.0-draft2", "[method]bucket.list-keys").unwrap(),
            "wasi_key_value.list_keys"
        );
        assert_eq!(name("spin:redis/redis@3.0.0", "[method]connection.get").unwrap(), "GET");
        assert!(name("wasi:http/types@0.2.0", "[method]fields.get").is_none());
        assert!(name("spin:redis/redis@3.0.0", "[constructor]connection").is_none());
    }

    #[test]
    fn of_an_address_there_is_no_secret() {
        let told = |address: &str| {
            let given = [Val::String(address.into())];
            let told = Called::of("fermyon:spin/postgres", "[static]connection.open").unwrap().attributes(&given);
            told[1..].iter().map(|it| it.value.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told("postgres://user:s3cret@db.example:5432/shop?sslmode=require"), "db.example 5432");
        assert_eq!(told("mysql://[::1]:3306/x"), "::1 3306");
        assert_eq!(told("redis://cache"), "cache");
        assert_eq!(told("host=db password=s3cret"), "");
    }
}
