module example.com/container

go 1.26
