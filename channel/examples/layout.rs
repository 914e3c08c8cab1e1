// SPDX-License-Identifier: MIT OR Apache-2.0

//! Prints the layout of a segment as JSON. A peer in another language can compare its own layout with this output in a
//! test.

#[path = "../tests/it/fields.rs"]
mod fields;

fn main() {
    let structures: Vec<String> = fields::structures()
        .into_iter()
        .map(|(name, size, fields)| {
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(field, (offset, size))| format!("\"{field}\": [{offset}, {size}]"))
                .collect();
            format!(
                "    \"{name}\": {{\"size\": {size}, \"fields\": {{{}}}}}",
                fields.join(", ")
            )
        })
        .collect();
    let constants: Vec<String> = fields::constants()
        .into_iter()
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    println!(
        "{{\n  \"structures\": {{\n{}\n  }},\n  \"constants\": {{{}}}\n}}",
        structures.join(",\n"),
        constants.join(", ")
    );
}
