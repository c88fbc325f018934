// Prints what kstatus, which Flux and kpt go by, makes of each object on standard input.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	for decoder := json.NewDecoder(os.Stdin); decoder.More(); {
		var text json.RawMessage
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&text)
		if err == nil {
			err = object.UnmarshalJSON(text)
		}
		if err == nil {
			var result *status.Result
			if result, err = status.Compute(object); err == nil {
				fmt.Println(result.Status)
				continue
			}
		}
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}
