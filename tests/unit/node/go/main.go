// Renders a template as k3s does (pkg/agent/templates: Go's text/template, with its own as "base").
//
//	render <question.json
package main

import (
	"encoding/json"
	"os"
	"text/template"
)

type runtime struct{ RuntimeType, BinaryName string }

type config struct {
	SystemdCgroup bool
	ExtraRuntimes map[string]runtime
}

func main() {
	var asked struct {
		Template, Base string
		Config         config
	}
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	made := template.Must(template.New("compiled_template").Parse(asked.Template))
	template.Must(made.New("base").Parse(asked.Base))
	if err := made.Execute(os.Stdout, asked.Config); err != nil {
		panic(err)
	}
}
