// The other side of test_go.py: containerd's own implementation of ttrpc.
//
//	interop server SOCKET    serve test.Test until stdin ends
//	interop client SOCKET    call every method of test.Test, print what comes back, one line a call
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "test.Test"

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: interop server|client SOCKET"))
	}
	switch os.Args[1] {
	case "server":
		fail(serve(os.Args[2]))
	case "client":
		fail(call(os.Args[2]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

func serve(path string) error {
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	server.RegisterService(service, &ttrpc.ServiceDesc{Methods: methods(), Streams: streams()})
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go server.Serve(context.Background(), listener)
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	return server.Close()
}

func methods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"Echo": func(ctx context.Context, unmarshal func(interface{}) error) (interface{}, error) {
			request := text("")
			if err := unmarshal(request); err != nil {
				return nil, err
			}
			name, _ := ttrpc.GetMetadataValue(ctx, "name")
			_, limited := ctx.Deadline()
			return text(fmt.Sprintf("%s name=%s limited=%v", request.Value, name, limited)), nil
		},
		"Fail": func(context.Context, func(interface{}) error) (interface{}, error) {
			return nil, status.Error(codes.NotFound, "no such thing")
		},
		"Hang": func(ctx context.Context, _ func(interface{}) error) (interface{}, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
}

func streams() map[string]ttrpc.Stream {
	return map[string]ttrpc.Stream{
		"Count":  {Handler: count, StreamingServer: true},
		"Total":  {Handler: total, StreamingClient: true},
		"Double": {Handler: double, StreamingClient: true, StreamingServer: true},
	}
}

func count(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	request := text("")
	if err := stream.RecvMsg(request); err != nil {
		return nil, err
	}
	for _, word := range strings.Fields(request.Value) {
		if err := stream.SendMsg(text(word)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func total(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	var all []string
	for {
		request := text("")
		if err := stream.RecvMsg(request); errors.Is(err, io.EOF) {
			return text(strings.Join(all, "+")), nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, request.Value)
	}
}

func double(_ context.Context, stream ttrpc.StreamServer) (interface{}, error) {
	for {
		request := text("")
		if err := stream.RecvMsg(request); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if request.Value == "bad" {
			return nil, status.Error(codes.Aborted, "bad word")
		}
		if err := stream.SendMsg(text(request.Value + request.Value)); err != nil {
			return nil, err
		}
	}
}

func call(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	unaryCalls(client)
	concurrentCalls(client)
	for _, words := range [][]string{{"a", "bc"}, {}, {"x", "bad"}} {
		streamCall(client, "Total", ttrpc.StreamDesc{StreamingClient: true}, nil, words)
		streamCall(client, "Double", ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, nil, words)
	}
	streamCall(client, "Count", ttrpc.StreamDesc{StreamingServer: true}, text("one two three"), nil)
	streamCall(client, "Nope", ttrpc.StreamDesc{StreamingServer: true}, text(""), nil)
	return nil
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
	for i := 0; i < 100; i++ {
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

func streamCall(client *ttrpc.Client, method string, desc ttrpc.StreamDesc, request *wrapperspb.StringValue, words []string) {
	var message interface{}
	if request != nil {
		message = request
	}
	stream, err := client.NewStream(context.Background(), &desc, service, method, message)
	fail(err)
	for _, word := range words {
		fail(stream.SendMsg(text(word)))
	}
	if desc.StreamingClient {
		fail(stream.CloseSend())
	}
	fmt.Printf("%s(%s): %s\n", method, strings.Join(words, " "), strings.Join(receive(stream), " "))
}

func receive(stream ttrpc.ClientStream) []string {
	var all []string
	for {
		response := text("")
		if err := stream.RecvMsg(response); err != nil {
			return append(all, err.Error())
		}
		all = append(all, response.Value)
	}
}
