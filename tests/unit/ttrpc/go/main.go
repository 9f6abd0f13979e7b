//go:build !unary

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

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

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
