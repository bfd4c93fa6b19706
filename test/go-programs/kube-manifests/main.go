// Checks manifests for Kubernetes as strictly as an API server does: unknown fields and wrong types are errors.
//
//	kube-manifests DIR   builds a kustomization, checks what comes out, and prints it
//	kube-manifests -     checks the documents on standard input
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	strict "sigs.k8s.io/yaml"
)

// What the gateway's manifests consist of.
var kinds = map[string]func() any{
	"v1/Namespace":                  func() any { return &core.Namespace{} },
	"v1/ConfigMap":                  func() any { return &core.ConfigMap{} },
	"v1/Service":                    func() any { return &core.Service{} },
	"apps/v1/StatefulSet":           func() any { return &apps.StatefulSet{} },
	"policy/v1/PodDisruptionBudget": func() any { return &policy.PodDisruptionBudget{} },
}

func main() {
	if len(os.Args) != 2 {
		fail(errors.New("usage: kube-manifests DIR | -"))
	}
	documents, err := read(os.Args[1])
	if err != nil {
		fail(err)
	}
	count := 0
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(documents)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			fail(err)
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		if err := check(document); err != nil {
			fail(err)
		}
		count++
	}
	if count == 0 {
		fail(errors.New("there is no document"))
	}
	os.Stdout.Write(documents)
}

func read(from string) ([]byte, error) {
	if from == "-" {
		return io.ReadAll(os.Stdin)
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), from)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

func check(document []byte) error {
	var kind meta.TypeMeta
	if err := strict.Unmarshal(document, &kind); err != nil {
		return err
	}
	name := kind.APIVersion + "/" + kind.Kind
	of, known := kinds[name]
	if !known {
		return fmt.Errorf("%s is none of the kinds that this program knows", name)
	}
	if err := strict.UnmarshalStrict(document, of()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
