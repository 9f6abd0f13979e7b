package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
)

const service = "test.Test"

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func unaryCalls(client *ttrpc.Client) {
	plain := context.Background()
	named := ttrpc.WithMetadata(plain, ttrpc.MD{"name": {"k8s.io"}})
	limited, cancel := context.WithTimeout(plain, time.Hour)
	defer cancel()
	short, cancel := context.WithTimeout(plain, 50*time.Millisecond)
	defer cancel()
	unary(plain, client, service, "Echo", "hello")
	unary(plain, client, service, "Echo", "")
	unary(named, client, service, "Echo", "named")
	unary(limited, client, service, "Echo", "limited")
	unary(plain, client, service, "Fail", "")
	unary(plain, client, service, "Nope", "")
	unary(plain, client, "test.Nope", "Echo", "")
	unary(short, client, service, "Hang", "")
	response := text("")
	large := strings.Repeat("x", 4<<20-100)
	err := client.Call(plain, service, "Echo", text(large), response)
	fmt.Println("large:", len(response.Value)-len(large), err)
}

func unary(ctx context.Context, client *ttrpc.Client, service, method, value string) {
	response := text("")
	err := client.Call(ctx, service, method, text(value), response)
	fmt.Printf("%s/%s(%s): %q %v\n", service, method, value, response.Value, err)
}

func concurrentCalls(client *ttrpc.Client) {
	var group sync.WaitGroup
	var lock sync.Mutex
	right := 0
	for i := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			response := text("")
			value := fmt.Sprint(i)
			err := client.Call(context.Background(), service, "Echo", text(value), response)
			lock.Lock()
			defer lock.Unlock()
			if err == nil && strings.HasPrefix(response.Value, value+" ") {
				right++
			}
		}()
	}
	group.Wait()
	fmt.Println("concurrent:", right)
}
